// Package names finds out which object a name of BTNS stands for just now.
//
// A name is a peer id, the hash of a public key, and its owner says what it means by a
// signed record; or it is a domain, whose TXT records say it (DNSLink). Either may lead to
// an object, /btfs/CID, or to another name, up to eight times.
//
// # Who is believed
//
// A record is verified here against the key in the name: it does not matter who sent it. It
// comes from the DHT (bitswap.Node), and the user's node, if there is one, is asked beside: a
// record that is there within a second after its answer counts more.
// DNS is believed as everybody does, which is worth as much as the user's resolver. What
// the user's own node says is believed too, as it is theirs: it verifies records itself,
// but nothing of that can be seen. Each answer tells which of these it was.
//
// Records of package btns are valid for long, and an old one is easily sent again: a Resolver
// remembers the newest sequence that it saw of each name, and takes none below it.
//
// # Rejected
//
// A gateway's redirect or header for /btns/NAME: it cannot be verified, and gateways of
// go-btfs do not serve the record itself (400). Asking for a
// domain through a proxy's own lookups: SOCKS5 has none for TXT. So behind a proxy a
// domain is looked up by the user's node, or not at all.
package names
