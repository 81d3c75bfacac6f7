package discovery

import (
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/anacrolix/dht/v2/krpc"
	"github.com/anacrolix/torrent/bencode"
)

// guard stands between the network and anacrolix/dht, which
//
//   - panics when its socket reports any error before Close,
//   - panics on a query without arguments and on addresses of less than two
//     bytes, each a single packet from anybody,
//   - writes a line to stderr for each packet that it cannot parse.
//
// So a packet passes only if it parses here first, where a panic is caught. The
// price is a second decoding of some hundred bytes.
type guard struct {
	net.PacketConn
	log    *slog.Logger
	once   sync.Once
	closed chan struct{}
}

func newGuard(pc net.PacketConn, log *slog.Logger) *guard {
	return &guard{PacketConn: pc, log: log, closed: make(chan struct{})}
}

// Close makes ReadFrom fail, which the server expects after its own Close only.
func (g *guard) Close() error {
	g.once.Do(func() { close(g.closed) })
	return g.PacketConn.Close()
}

// ReadFrom returns the next packet that is safe to pass on. Errors are waited
// out until Close: an interface that is down for a while is no reason to end.
func (g *guard) ReadFrom(b []byte) (int, net.Addr, error) {
	failed := false
	for {
		n, from, err := g.PacketConn.ReadFrom(b)
		if err == nil {
			if acceptable(b[:n]) {
				return n, from, nil
			}
			continue
		}
		if errors.Is(err, net.ErrClosed) {
			<-g.closed // closed by somebody else: wait for our own Close
			return 0, nil, err
		}
		if !failed {
			g.log.Warn("DHT socket", "err", err)
			failed = true
		}
		select {
		case <-g.closed:
			return 0, nil, net.ErrClosed
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// acceptable reports whether the server can handle b without harm.
func acceptable(b []byte) (ok bool) {
	defer func() {
		if recover() != nil { // that of the decoder, on b: there is no state to be left broken
			ok = false
		}
	}()
	var m krpc.Msg
	if err := bencode.Unmarshal(b, &m); err != nil {
		if _, trailing := errors.AsType[bencode.ErrUnusedTrailingBytes](err); !trailing {
			return false
		}
	}
	switch m.Y {
	case krpc.YQuery:
		return m.A != nil
	case krpc.YResponse:
		return m.R != nil
	}
	return m.Y == krpc.YError
}
