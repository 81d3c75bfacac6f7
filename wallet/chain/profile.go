package chain

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"time"

	"github.com/btmount/btmount/wallet"
)

// Duration is a time in JSON, such as "2s".
type Duration time.Duration

// MarshalText writes it as "2s".
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText reads it.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	*d = Duration(v)
	return err
}

// Profile is what is known of a chain.
type Profile struct {
	Name        string                    `json:"name"`
	ID          uint64                    `json:"id"` // EIP-155
	RPC         []string                  `json:"rpc"`
	Explorer    string                    `json:"explorer,omitempty"`
	Finality    uint64                    `json:"finality"`      // blocks, the transaction's own included, after which it is final
	BlockTime   Duration                  `json:"block_time"`    // about
	MaxHeadAge  Duration                  `json:"max_head_age"`  // a node whose head is older is not used
	MaxGasPrice wallet.Amount             `json:"max_gas_price"` // wei; nothing is signed above it
	MaxGas      uint64                    `json:"max_gas"`       // of one transaction
	WBTT        *wallet.Address           `json:"wbtt,omitempty"`
	Contracts   map[string]wallet.Address `json:"contracts,omitempty"` // of BTFS and the bridge, by name
}

// Profiles are the chains that are built in. Gas price: BTTC's is set by its network, between
// 3e14 and 9e15 wei by what is published; above 2e16 something is wrong.
func Profiles() []Profile {
	price := wallet.FromWei(20_000_000_000_000_000)
	return []Profile{
		{
			Name: "bttc", ID: 199, RPC: []string{"https://rpc.bt.io", "https://rpc.bittorrentchain.io", "https://bttc.trongrid.io"}, Explorer: "https://bttcscan.com",
			Finality: 64, BlockTime: Duration(2 * time.Second), MaxHeadAge: Duration(2 * time.Minute), MaxGasPrice: price, MaxGas: 3_000_000,
			WBTT: at("0x23181F21DEa5936e24163FFABa4Ea3B316B57f3C"),
			Contracts: map[string]wallet.Address{
				"vault_factory": *at("0x763d7858287B9a33F4bE5bb3df0241dACc59BCc7"), "vault_logic": *at("0x5c67bED46336A59252b73a0fA22B9de1cffb172e"),
				"price_oracle": *at("0x094fF75b4760f867d6211E0104f805a59809c369"), "child_chain_manager": *at("0x9a15f3a682d086c515be4037bda3b0676203a8ef"),
			},
		},
		{
			Name: "donau", ID: 1029, RPC: []string{"https://pre-rpc.bt.io"}, Explorer: "https://testscan.bt.io",
			Finality: 64, BlockTime: Duration(2 * time.Second), MaxHeadAge: Duration(2 * time.Minute), MaxGasPrice: price, MaxGas: 3_000_000,
			WBTT: at("0x107742eb846b86ceaaf7528d5c85cddcad3e409a"),
			Contracts: map[string]wallet.Address{
				"vault_factory": *at("0x47caA2198A7614E68a9F9578e217535Ef9674040"), "vault_logic": *at("0x67F0366c4c0c83F55D4759D301BEe051EF01E350"),
				"price_oracle": *at("0x0DE81B472d87fBA50DF04660430731372A5B823D"), "child_chain_manager": *at("0xfe22c61f33e6d39c04de80b7de4b1d83f75210c4"),
			},
		},
	}
}

func at(s string) *wallet.Address {
	a, _, err := wallet.ParseAddress(s)
	if err != nil {
		panic(err) // of a constant; a test reads them all
	}
	return &a
}

var names = regexp.MustCompile(`^[a-z][a-z0-9-]{0,31}$`)

// ErrProfile says that a profile is not good.
var ErrProfile = errors.New("not a profile of a chain")

// ParseProfile reads a chain of one's own in JSON. Needed are name, id and rpc; the others
// are as BTTC's if they are not given. Names that are not known are refused.
func ParseProfile(text []byte) (Profile, error) {
	p := Profiles()[0]
	p = Profile{Finality: p.Finality, BlockTime: p.BlockTime, MaxHeadAge: p.MaxHeadAge, MaxGasPrice: p.MaxGasPrice, MaxGas: p.MaxGas}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&p); err != nil {
		return p, fmt.Errorf("%w: %w", ErrProfile, err)
	}
	if _, err := d.Token(); err != io.EOF {
		return p, fmt.Errorf("%w: something stands behind it", ErrProfile)
	}
	return p, p.check()
}

func (p Profile) check() error {
	wrong := func(what string, v any) error { return fmt.Errorf("%w: %s: %v", ErrProfile, what, v) }
	switch {
	case !names.MatchString(p.Name):
		return wrong("name: give small letters and digits", fmt.Sprintf("%.40q", p.Name))
	case p.ID == 0 || p.ID > 1<<53:
		return wrong("id", p.ID)
	case len(p.RPC) == 0 || len(p.RPC) > 16:
		return wrong("rpc: give 1 to 16 addresses of nodes; there are", len(p.RPC))
	case p.Finality < 1 || p.Finality > 100_000:
		return wrong("finality", p.Finality)
	case p.BlockTime < Duration(time.Millisecond) || p.BlockTime > Duration(time.Hour):
		return wrong("block_time", time.Duration(p.BlockTime))
	case p.MaxHeadAge < Duration(time.Second):
		return wrong("max_head_age", time.Duration(p.MaxHeadAge))
	case p.MaxGas < 21_000 || p.MaxGas > 30_000_000:
		return wrong("max_gas", p.MaxGas)
	case p.MaxGasPrice.IsZero():
		return wrong("max_gas_price", p.MaxGasPrice)
	}
	for _, r := range p.RPC {
		if err := checkURL(r); err != nil {
			return wrong("rpc", err)
		}
	}
	return nil
}

// Hosts are the nodes without the paths, in which keys may be.
func (p Profile) Hosts() (hosts []string) {
	for _, r := range p.RPC {
		hosts = append(hosts, newNode(r, nil).name)
	}
	return hosts
}

// checkURL takes https, and http to this machine and its own network only: who sits between
// could lie for all nodes.
func checkURL(s string) error {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.Opaque != "" || u.Fragment != "" {
		return errors.New("not an address of the form https://host") // it may hold a key: it is not repeated
	}
	if u.Scheme == "https" {
		return nil
	}
	host := u.Hostname()
	ip, err := netip.ParseAddr(host)
	if u.Scheme == "http" && (host == "localhost" || err == nil && (ip.IsLoopback() || ip.IsPrivate())) {
		return nil
	}
	return fmt.Errorf("%s: give https; http only to this machine or its network", net.JoinHostPort(host, u.Port()))
}
