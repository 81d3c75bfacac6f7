"""libtorrent as the peer to compare with: lt.py MODE TORRENT DIR SECONDS OFFSETS PEER...
MODE seq: downloads in order for SECONDS, or to the end; prints bytes, seconds,
CPU seconds and the longest time in which the bytes in a row from the start did not grow.
MODE all: the same, rarest pieces first.
MODE seek: fetches the piece at each offset (comma separated) with a deadline of now, one after the
other, as its streaming documentation says; prints the seconds of each.
PROXY in the environment is the SOCKS5 proxy to go through, HOST:PORT."""
import os, resource, sys, time
import libtorrent as lt

mode, torrent, where, seconds, offsets = sys.argv[1:6]
s = lt.session({"listen_interfaces": "0.0.0.0:0", "enable_dht": False, "enable_lsd": False, "enable_upnp": False, "enable_natpmp": False,
                "enable_incoming_utp": False, "enable_outgoing_utp": False, "allow_multiple_connections_per_ip": True, "close_redundant_connections": False, "alert_mask": 0})
if os.environ.get("PROXY"):
    host, port = os.environ["PROXY"].rsplit(":", 1)
    s.apply_settings({"proxy_type": lt.proxy_type_t.socks5, "proxy_hostname": host, "proxy_port": int(port), "proxy_peer_connections": True})
p = lt.add_torrent_params()
p.ti = lt.torrent_info(torrent)
p.save_path = where
p.flags = p.flags & ~lt.torrent_flags.paused & ~lt.torrent_flags.auto_managed
if mode == "seq":
    p.flags |= lt.torrent_flags.sequential_download
h = s.add_torrent(p)
if mode == "seek":
    h.prioritize_pieces([0] * p.ti.num_pieces())
t0 = time.time()
def call():
    for a in sys.argv[6:]:
        ip, port = a.rsplit(":", 1)
        h.connect_peer((ip, int(port)))
call()
if mode != "seek":
    front, moved, gap, called = 0, t0, 0, t0
    while time.time() - t0 < float(seconds) and not h.status().is_seeding:
        time.sleep(.01)
        now = time.time()
        if h.have_piece(front):
            while front < p.ti.num_pieces() and h.have_piece(front):
                front += 1
            gap, moved = max(gap, now - moved), now
        if now - called > 1 and len(sys.argv) > 10:  # one of them may only come later
            called = now
            ip, port = sys.argv[-1].rsplit(":", 1)
            h.connect_peer((ip, int(port)))
    u = resource.getrusage(resource.RUSAGE_SELF)
    print(h.status().total_done, time.time() - t0, u.ru_utime + u.ru_stime, max(gap, time.time() - moved))
else:
    called = t0
    while h.status().num_peers < len(sys.argv) - 6:
        time.sleep(.01)
        if time.time() - called > 3:
            called = time.time()
            call()
        if called - t0 > 20:
            sys.exit("%d of %d peers connected within 20 s" % (h.status().num_peers, len(sys.argv) - 6))
    time.sleep(2)  # unchoked
    out = []
    for off in offsets.split(","):
        piece = int(off) // p.ti.piece_length()
        t0 = time.time()
        h.set_piece_deadline(piece, 0)
        while not h.have_piece(piece):
            time.sleep(.002)
            if time.time() - t0 > 20:
                sys.exit("piece %d has not come within 20 s" % piece)
        out.append("%.4f" % (time.time() - t0))
    print(",".join(out))
