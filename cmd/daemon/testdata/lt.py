"""One libtorrent client. It tells what it does in lines of JSON, takes commands
(peer HOST:PORT) on its standard input, and ends when that is closed."""
import argparse
import json
import os
import sys
import threading

import libtorrent as lt

arg = argparse.ArgumentParser()
arg.add_argument("--make", help="make a .torrent of this folder, write it to --torrent, and end")
arg.add_argument("--piece", type=int, default=32 << 10)
arg.add_argument("--v2", action="store_true", help="make it for BitTorrent v2 alone, not a hybrid")
arg.add_argument("--torrent")
arg.add_argument("--magnet")
arg.add_argument("--save")
arg.add_argument("--seed", action="store_true", help="believe that the data is there, and right; then it has no hashes of blocks (BEP 52) to give")
arg.add_argument("--blind", action="store_true", help="never compare with a hash")
arg.add_argument("--dht", help="HOST:PORT of the one node to start from")
arg.add_argument("--encryption", type=int, help="0 always, 1 if asked for, 2 never")
arg.add_argument("--eager", action="store_true", help="call who turned us away again after a second, not after a minute")
arg.add_argument("--lsd", action="store_true")
arg.add_argument("--utp", action="store_true", help="speak uTP and no TCP")
arg.add_argument("--address", default="127.0.0.1")
arg.add_argument("--port", type=int, default=0)
arg.add_argument("--peer", action="append", default=[])
arg.add_argument("--set", default="{}", help="more settings, in JSON")
arg.add_argument("--no-pex", action="store_true", help="exchange no peers, and no metadata")
arg.add_argument("--choke", action="store_true", help="serve nobody, beyond what BEP 6 allows")
arg.add_argument("--only", type=int, help="download this file alone")
arg.add_argument("--show-peers", action="store_true", help="tell of every peer: client, start of its id, pieces, whether it wants nothing, whether it chokes")
a = arg.parse_args()


def say(**what):
    print(json.dumps(what), flush=True)


if a.make:
    files = lt.file_storage()
    lt.add_files(files, a.make)
    torrent = lt.create_torrent(files, a.piece, flags=lt.create_torrent.v2_only if a.v2 else 0)
    torrent.set_creator("libtorrent " + lt.__version__)
    lt.set_piece_hashes(torrent, os.path.dirname(a.make))
    with open(a.torrent, "wb") as out:
        out.write(lt.bencode(torrent.generate()))
    sys.exit(0)

settings = {
    "listen_interfaces": "%s:%d" % (a.address, a.port), "allow_multiple_connections_per_ip": True,
    "enable_lsd": a.lsd, "enable_upnp": False, "enable_natpmp": False, "enable_dht": bool(a.dht),
    "dht_bootstrap_nodes": a.dht or "", "alert_mask": lt.alert.category_t.status_notification | lt.alert.category_t.error_notification,
}
if a.blind:
    settings["disable_hash_checks"] = True
if a.dht:  # nodes on loopback look like an attack to it
    settings.update({
        "dht_restrict_routing_ips": False, "dht_restrict_search_ips": False, "dht_prefer_verified_node_ids": False,
        "dht_enforce_node_id": False, "dht_ignore_dark_internet": False, "dht_block_ratelimit": 1000,
        "dht_upload_rate_limit": 1000000,
    })
if a.encryption is not None:
    settings.update({"in_enc_policy": a.encryption, "out_enc_policy": a.encryption, "allowed_enc_level": 3, "prefer_rc4": a.encryption == 0})
if a.eager:
    settings.update({"min_reconnect_time": 1, "max_failcount": 1000})
if a.utp:
    settings.update({"enable_outgoing_tcp": False, "enable_incoming_tcp": False, "enable_outgoing_utp": True, "enable_incoming_utp": True})
if a.choke:
    settings.update({"unchoke_slots_limit": 0, "unchoke_interval": 10000, "optimistic_unchoke_interval": 10000})
settings.update(json.loads(a.set))
session = lt.session(settings, 0 if a.no_pex else 1)
if a.choke:
    session.set_peer_class_filter(lt.ip_filter())  # peers of the LAN need no slot otherwise
if a.torrent:
    add = lt.add_torrent_params()
    add.ti = lt.torrent_info(a.torrent)
else:
    add = lt.parse_magnet_uri(a.magnet)
add.save_path = a.save
add.flags &= ~lt.torrent_flags.auto_managed & ~lt.torrent_flags.paused
if a.seed:
    add.flags |= lt.torrent_flags.seed_mode
if a.only is not None:
    add.file_priorities = [4 if i == a.only else 0 for i in range(add.ti.num_files())]
torrent = session.add_torrent(add)


def connect(peer):
    host, port = peer.rsplit(":", 1)
    torrent.connect_peer((host, int(port)))


for p in a.peer:
    connect(p)


def commands():
    for line in sys.stdin:
        word = line.split()
        if word[:1] == ["peer"]:
            connect(word[1])
    os._exit(0)


threading.Thread(target=commands, daemon=True).start()
last = None
while True:
    s = torrent.status()
    now = dict(port=session.listen_port(), state=str(s.state), progress=s.progress_ppm,
               up=s.total_payload_upload, down=s.total_payload_download, peers=s.num_peers,
               metadata=s.has_metadata)
    if a.show_peers:
        now["swarm"] = [dict(addr="%s:%d" % p.ip, client=p.client.decode(errors="replace"), id=p.pid.to_bytes()[:8].decode(errors="replace"),
                             pieces=p.num_pieces, upload_only=bool(p.flags & lt.peer_info.upload_only), chokes=bool(p.flags & lt.peer_info.remote_choked))
                        for p in torrent.get_peer_info() if not p.flags & (lt.peer_info.connecting | lt.peer_info.handshake)]
    if now != last and now["port"]:
        say(**now)
        last = now
    if a.dht:
        torrent.force_dht_announce()
    session.wait_for_alert(1000 if a.dht else 50)
    session.pop_alerts()
    threading.Event().wait(0.05)
