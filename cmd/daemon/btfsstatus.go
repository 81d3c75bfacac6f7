package daemon

import "time"

// BTFSStatus is what status.json says of BTFS. Sizes are in bytes, counters from the start
// of the mount.
type BTFSStatus struct {
	Named   int                `json:"named"`   // objects and names that are listed because somebody named them
	Waiting int                `json:"waiting"` // blocks that no source is asked for yet
	Asked   int                `json:"asked"`   // questions to sources that are not answered
	Bytes   int64              `json:"bytes"`   // that came, verified
	Wasted  int64              `json:"wasted"`  // that came twice, about
	Node    *BTFSNodeStatus    `json:"node"`    // the node in here; null: --btfs-network none
	Sources []BTFSSourceStatus `json:"sources"`
}

// BTFSNodeStatus is the BTFS node in here.
type BTFSNodeStatus struct {
	Network string `json:"network"`
	Awake   bool   `json:"awake"`  // it has connections; without readers it sleeps
	Peers   int    `json:"peers"`  // that are connected
	Banned  int    `json:"banned"` // that sent what nobody asked for
	Wasted  int64  `json:"wasted"` // bytes that came twice
}

// BTFSSourceStatus is one source of blocks.
type BTFSSourceStatus struct {
	Name      string `json:"name"`
	Blocks    int64  `json:"blocks"`
	Bytes     int64  `json:"bytes"`
	Wasted    int64  `json:"wasted"`     // bytes that others brought first, about
	Lies      int    `json:"lies"`       // answers with other bytes
	Failures  int    `json:"failures"`   // answers that were none
	LatencyMS int64  `json:"latency_ms"` // of a block, smoothed; 0: none came
	Asked     int    `json:"asked"`
	Window    int    `json:"window"` // questions at a time
	Banned    string `json:"banned,omitempty"`
}

// btfsStatus is nil without BTFS.
func (d *Daemon) btfsStatus() *BTFSStatus {
	if d.btfs == nil {
		return nil
	}
	st := d.btfs.store.Status()
	named, _ := d.Objects()
	s := &BTFSStatus{Named: named, Waiting: st.Waiting, Asked: st.Asked, Bytes: st.Bytes, Wasted: st.Wasted, Sources: []BTFSSourceStatus{}}
	if n := st.Peers; n != nil {
		s.Node = &BTFSNodeStatus{Network: n.Network, Awake: n.Awake, Peers: n.Peers, Banned: n.Left, Wasted: n.Wasted}
	}
	for _, x := range st.Sources {
		one := BTFSSourceStatus{
			Name: x.Name, Blocks: x.Blocks, Bytes: x.Bytes, Wasted: x.Wasted, Lies: x.Lies, Failures: x.Failures,
			LatencyMS: x.Latency.Round(time.Millisecond).Milliseconds(), Asked: x.Asked, Window: x.Window,
		}
		if x.Banned != nil {
			one.Banned = x.Banned.Error()
		}
		s.Sources = append(s.Sources, one)
	}
	return s
}

// sources are those that blocks came from, or may come from if none came yet.
func (s *BTFS) sources() (all []string) {
	var idle []string
	for _, x := range s.Status().Sources {
		switch {
		case x.Blocks > 0:
			all = append(all, x.Name)
		case x.Banned == nil:
			idle = append(idle, x.Name)
		}
	}
	if len(all) == 0 {
		return idle
	}
	return all
}
