// Package chain speaks to chains of the EVM over JSON-RPC, of which any node may lie: BTTC,
// its test chain Donau, and one's own.
//
// # Whom to believe
//
// Several nodes are asked at a time ([Client.Look]). Each is asked for its chain id every
// time; one of another chain, or whose head is too old, is not used. The others have to
// agree, at the lowest of their heads, on every number that something depends on; if they do
// not, nothing is signed. With one node it is that node's word. What a liar can do at worst is
// to keep us from sending: the chain id is in every signature (EIP-155), gas and its price
// are capped, the fee is agreed to before, and nonces are what the journal says.
//
// # One transfer is one transfer
//
// [Sender.Send] writes the intent into the ledger, signs, writes the signed bytes into the
// journal, and only then sends them. Each is on the disk before the next begins. After a
// crash the same bytes are sent again; they have one nonce, so they can be mined once. Another
// transaction of that nonce is made only by [Sender.Replace], when the user says so. It ends
// when it is as deep as the chain's profile wants; until then a reorganization that takes
// it out again has it sent again.
package chain
