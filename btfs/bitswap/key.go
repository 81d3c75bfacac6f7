package bitswap

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/libp2p/go-libp2p/core/pnet"
)

// Network is a network of BTFS nodes: who has its key can speak to its members.
type Network struct {
	Name      string
	Bootstrap []string // multiaddrs of nodes to begin with; may be empty
	key       pnet.PSK
}

const maxKeyFile = 4 << 10

// The keys of the public networks are no secrets: they keep BTFS and IPFS apart. They
// stand in go-btfs-config (init.go).
const (
	mainKey = "64ef95289a6b998c776927ed6e33ca8c9202ee47df90141d09f5ffeeb64b8a66"
	testKey = "d0566ce7e71d880487a89385296ab8a454967e975955ce0e59bff7991d5539d6"
)

// Main is BTFS; Test is its test network.
var (
	Main = Network{"main", mainBootstrap, mustKey(mainKey)}
	Test = Network{"test", testBootstrap, mustKey(testKey)}
)

func mustKey(digits string) pnet.PSK {
	k, err := decodeKey([]byte("/key/swarm/psk/1.0.0/\n/base16/\n" + digits))
	if err != nil {
		panic("bitswap: " + err.Error())
	}
	return k
}

// ParseNetwork returns main, test, or the network of a key file: a swarm.key, which says
// /key/swarm/psk/1.0.0/, the encoding and the key, a line each.
func ParseNetwork(name string) (Network, error) {
	switch name {
	case Main.Name:
		return Main, nil
	case Test.Name:
		return Test, nil
	}
	f, err := os.Open(name)
	if pe := (*os.PathError)(nil); errors.As(err, &pe) {
		return Network{}, fmt.Errorf("%w; give main, test, or the file of a swarm key", pe.Err)
	} else if err != nil {
		return Network{}, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxKeyFile))
	if err != nil {
		return Network{}, errors.New("it cannot be read; give main, test, or the file of a swarm key")
	}
	key, err := decodeKey(text)
	if err != nil {
		return Network{}, err
	}
	return Network{Name: name, key: key}, nil
}

// decodeKey reads a swarm key. Its errors do not repeat it.
func decodeKey(text []byte) (pnet.PSK, error) {
	key, err := pnet.DecodeV1PSK(bytes.NewReader(text))
	if err != nil || len(key) != 32 {
		return nil, errors.New("not a swarm key: its lines are /key/swarm/psk/1.0.0/, then /base16/, then 64 digits")
	}
	return key, nil
}
