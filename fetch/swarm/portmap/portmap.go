package portmap

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/btmount/btmount/fetch/swarm/network"
)

const (
	leaseFor  = time.Hour
	leastTime = 30 * time.Second // between two requests, whatever lease the router gives
	retryMost = 30 * time.Minute
	leaveTime = 2 * time.Second
	pcpGrace  = time.Second // for an answer in PCP, after one in NAT-PMP
)

// Config says what to map.
type Config struct {
	Network *network.Network
	TCP     uint16 // listening port, 0: none
	UDP     uint16
	Logger  *slog.Logger

	// Of tests: where the router is, and where it listens. The zero value is the router
	// of the default route, at the ports of the protocols.
	gateway      netip.Addr
	natpmp, ssdp uint16
	least        time.Duration // in place of leastTime
}

// Status is what the router gave.
type Status struct {
	Method   string     `json:"method"`          // PCP, NAT-PMP, UPnP, "" if nothing is mapped
	External netip.Addr `json:"external"`        // the router's outer address; not valid: unknown
	TCP      uint16     `json:"tcp"`             // at which port others call us; 0: not mapped
	UDP      uint16     `json:"udp"`             //
	Error    string     `json:"error,omitempty"` // of the last try
}

// mapping is one that the router made.
type mapping struct {
	outer uint16
	lease time.Duration
}

// router maps ports.
type router interface {
	external(ctx context.Context) (netip.Addr, error)
	add(ctx context.Context, p protocol, inner, outer uint16, lease time.Duration) (mapping, error)
	remove(ctx context.Context, p protocol, inner, outer uint16) error
	close()
	String() string
}

// Mapper keeps our port mapped.
type Mapper struct {
	cfg Config

	mu     sync.Mutex
	status Status // guarded by mu
}

// New prepares a Mapper; Run maps.
func New(cfg Config) *Mapper {
	if cfg.natpmp == 0 {
		cfg.natpmp, cfg.ssdp = natpmpPort, ssdpPort
	}
	if cfg.least == 0 {
		cfg.least = leastTime
	}
	return &Mapper{cfg: cfg}
}

// Status tells what is mapped.
func (m *Mapper) Status() Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.status
}

// External returns the port at which others call us over TCP, 0 if none is mapped.
func (m *Mapper) External() uint16 { return m.Status().TCP }

func (m *Mapper) set(s Status) (changed bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	changed = m.status != s
	m.status = s
	return changed
}

// Run keeps the ports mapped until ctx ends, and then takes the mappings back, which may
// take two seconds.
func (m *Mapper) Run(ctx context.Context) error {
	var r router
	retry := m.cfg.least
	for {
		s, lease, err := m.round(ctx, &r)
		wait := max(lease/2, m.cfg.least)
		if err != nil {
			if ctx.Err() == nil {
				s.Error = err.Error()
			}
			wait, retry = retry, min(2*retry, retryMost)
		} else {
			retry = m.cfg.least
		}
		if m.set(s) && ctx.Err() == nil {
			if err != nil {
				m.cfg.Logger.Info("port mapping: peers can not call us, unless the port is forwarded by hand", "err", err)
			} else {
				m.cfg.Logger.Info("port mapping", "by", s.Method, "external", s.External, "tcp", s.TCP, "udp", s.UDP)
			}
		}
		select {
		case <-ctx.Done():
			m.leave(context.WithoutCancel(ctx), r, s)
			return nil
		case <-time.After(wait):
		}
	}
}

// round maps the ports, or renews them; the router that answered is kept.
func (m *Mapper) round(ctx context.Context, r *router) (s Status, lease time.Duration, err error) {
	if *r == nil {
		if *r, err = m.find(ctx); err != nil {
			return s, 0, err
		}
	}
	if s, lease, err = m.mapBoth(ctx, *r); err != nil {
		(*r).close()
		*r = nil
	}
	return s, lease, err
}

// mapBoth maps TCP, and UDP to the same port if the router likes. It asks for the ports
// that it has.
func (m *Mapper) mapBoth(ctx context.Context, r router) (s Status, lease time.Duration, err error) {
	before := m.Status()
	lease = leaseFor
	wish := m.cfg.TCP
	if before.TCP != 0 {
		wish = before.TCP
	}
	if m.cfg.TCP != 0 {
		got, err := r.add(ctx, tcp, m.cfg.TCP, wish, leaseFor)
		if err != nil {
			return Status{}, 0, err
		}
		s.TCP, wish, lease = got.outer, got.outer, min(lease, got.lease)
	}
	if m.cfg.UDP != 0 {
		if wish == 0 {
			wish = m.cfg.UDP
		}
		got, err := r.add(ctx, udp, m.cfg.UDP, wish, leaseFor)
		if err != nil {
			return Status{}, 0, err // the other mapping ends with its lease
		}
		s.UDP, lease = got.outer, min(lease, got.lease)
	}
	s.Method = r.String()
	s.External, _ = r.external(ctx) // for the user; not all routers tell
	return s, lease, nil
}

// find looks for a router that maps ports.
func (m *Mapper) find(ctx context.Context) (router, error) {
	gateway := m.cfg.gateway
	if !gateway.IsValid() {
		var err error
		if gateway, err = m.cfg.Network.Gateway(); err != nil {
			return nil, err
		}
	}
	r, err := m.findPCP(ctx, netip.AddrPortFrom(gateway, m.cfg.natpmp))
	if err == nil {
		return r, nil
	}
	u, upnpErr := findUPnP(ctx, m.cfg.Network, gateway, m.cfg.ssdp)
	if upnpErr != nil {
		return nil, fmt.Errorf("router %v: %w; UPnP: %w", gateway, err, upnpErr)
	}
	return u, nil
}

// findPCP asks in PCP and in NAT-PMP at a time: a router that speaks neither is silent.
// PCP is taken if both are spoken.
func (m *Mapper) findPCP(ctx context.Context, to netip.AddrPort) (router, error) {
	us, err := m.cfg.Network.Toward(to)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	open := func() (net.PacketConn, error) { return m.cfg.Network.ListenPacket(ctx, "udp4", ":0") }
	first, err := open()
	if err != nil {
		return nil, err
	}
	second, err := open()
	if err != nil {
		first.Close()
		return nil, err
	}
	old := &natpmp{pc: second, to: to}
	oldErr := make(chan error, 1)
	newer, enough := context.WithCancelCause(ctx)
	defer enough(nil)
	go func() { // ends with cancel, or four seconds
		_, err := old.external(ctx)
		if err == nil { // who answers this would have answered the other by now, or soon
			time.AfterFunc(pcpGrace, func() { enough(errSilent) })
		}
		oldErr <- err
	}()
	r := newPCP(first, to, us)
	pcpErr := r.speaks(newer)
	if pcpErr == nil {
		cancel()
		<-oldErr
		old.close()
		return r, nil
	}
	r.close()
	if err := <-oldErr; err != nil {
		old.close()
		return nil, fmt.Errorf("PCP: %w; NAT-PMP: %w", pcpErr, err)
	}
	return old, nil
}

// leave takes the mappings back.
func (m *Mapper) leave(ctx context.Context, r router, s Status) {
	if r == nil {
		return
	}
	defer r.close()
	ctx, cancel := context.WithTimeout(ctx, leaveTime)
	defer cancel()
	var errs error
	if s.TCP != 0 {
		errs = errors.Join(errs, r.remove(ctx, tcp, m.cfg.TCP, s.TCP))
	}
	if s.UDP != 0 {
		errs = errors.Join(errs, r.remove(ctx, udp, m.cfg.UDP, s.UDP))
	}
	if errs != nil {
		m.cfg.Logger.Debug("port mapping was not taken back; it ends with its lease", "err", errs)
	}
	m.set(Status{})
}
