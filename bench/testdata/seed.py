"""One libtorrent seeder: seed.py ADDRESS DIR TORRENT [hash|choke|uTP|TCP]. Prints "ready", runs until killed. With hash it
hashes its data first, and so can tell the hashes of blocks (BEP 52). With choke it has 8 slots, as libtorrent has if
nobody says otherwise; else it serves everybody. With uTP it takes no TCP; else TCP only."""
import sys, time
import libtorrent as lt

at, where, torrent = sys.argv[1:4]
hashed = sys.argv[4:] == ["hash"]
s = lt.session({"listen_interfaces": at, "enable_dht": False, "enable_lsd": False, "enable_upnp": False,
                "enable_natpmp": False, "enable_incoming_utp": "uTP" in sys.argv, "enable_incoming_tcp": "uTP" not in sys.argv, "enable_outgoing_utp": False,
                "enable_outgoing_tcp": False,
                "unchoke_slots_limit": 8 if "choke" in sys.argv else -1,
                "allow_multiple_connections_per_ip": True, "close_redundant_connections": False, "alert_mask": 0})
if "choke" in sys.argv:  # it serves whoever is near whatever the slots say
    near = s.get_peer_class(lt.session.local_peer_class_id)
    near["ignore_unchoke_slots"] = False
    s.set_peer_class(lt.session.local_peer_class_id, near)
p = lt.add_torrent_params()
p.ti = lt.torrent_info(torrent, {"max_decode_tokens": 10_000_000, "max_buffer_size": 100 << 20})
p.save_path = where
p.flags = 0 if hashed else lt.torrent_flags.seed_mode
h = s.add_torrent(p)
while hashed and not h.status().is_seeding:
    time.sleep(.05)
print("ready", flush=True)
while True:
    time.sleep(3600)
