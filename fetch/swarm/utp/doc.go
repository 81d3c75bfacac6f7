// Package utp speaks uTP (BEP 29): connections over UDP that give way to others. Peers
// behind a NAT or a firewall that lets no TCP in are reached by it, and two of them
// that are both behind one (BEP 55).
//
// # Why our own
//
// The one library in Go, anacrolix/utp v0.1.0, brought 0.28 to 0.5 of what TCP brings
// over the same links, and lost a connection on loopback. go-libutp needs a C++
// compiler, which the build must not.
//
// # Parts
//
//	packet.go   what a packet says; what strangers send is checked here
//	machine.go  one connection as a state machine: packets and times in, packets out (pure)
//	receive.go  its half that receives; send.go: its half that sends
//	ledbat.go   how much may be on the way (pure)
//	conn.go     a machine as a net.Conn
//	socket.go   one UDP socket, and whose packet is whose
//	others.go   the packets that are not uTP, for the DHT on the same port
//
// The machine opens nothing, asks no clock and starts nothing, so that a network with
// loss, delay and reordering is a test that takes no time.
//
// # Time
//
// The sender sets its pace by the delays that the receiver measures, so that a receiver
// that is late to look makes the sender slow. So what counts is when the kernel
// got a packet, not when we read it.
//
// An acknowledgement goes out for every second packet, at the latest after 10 ms, at
// once when something is missing; but one at most for all that was read from the
// socket in one go. SACK names up to 256 packets beyond what is missing. A packet is
// lost if three that were sent later arrived. If the last of a flight is lost nothing
// comes later: then after two round trips it is sent again as a probe, since a
// request that waits for the usual half second is a reader that waits for it.
//
// # What strangers can cost
//
// A connection may hold 64 KiB of what arrived; more, up to 4 MiB, comes out of 64 MiB
// that all share. So the windows that peers are told are more than there is if all
// are used at once: then packets are dropped, and come again. Half-open connections
// are at most 256 for 10 s each, and get nowhere until the other side has proved that it
// gets our packets; accepted and not yet served are at most 64. What belongs to no
// connection is answered with a RESET at most 50 times a second. A RESET must name a
// packet of ours that is on the way.
//
// # Not here
//
// Probing for the largest packet: 1,400 bytes over IPv4, which routers may break up,
// 1,200 over IPv6 and after two timeouts in a row. Sending what a Write leaves over
// together with the next (Nagle): a request must not wait.
//
// # Locks
//
// Conn.mu guards the machine and is a leaf; Socket.mu guards the table of connections
// and is a leaf. Nothing is sent with a lock held: who sends takes a turn (Conn.flush),
// so that packets leave in order.
package utp
