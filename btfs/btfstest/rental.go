package btfstest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/ipfs/go-cid"
)

func (r *RPC) context() context.Context { return context.Background() }

// rented are the commands of storage/.
func (r *RPC) rented(w http.ResponseWriter, q *http.Request, command string) bool {
	args := q.URL.Query()
	switch command {
	case "storage/upload":
		r.upload(w, q)
	case "storage/upload/status":
		r.status(w, args.Get("arg"))
	case "storage/upload/renew":
		r.mu.Lock()
		r.renewals = append(r.renewals, args.Get("arg"))
		r.mu.Unlock()
		if f := r.behaviour().OnUpload; f != nil {
			f()
		}
		answer(w, map[string]any{"success": true, "cid": args.Get("arg"), "new_expiration": "2026-12-25T00:00:00Z", "total_cost": 77})
	case "storage/hosts/info":
		answer(w, map[string]any{"Nodes": []map[string]any{
			{"node_id": PeerID, "score": json.Number("97.5"), "storage_price_ask": 125000, "storage_time_min": 30, "up_time": 3600},
			{"node_id": "16Uiu2HAmSecond", "score": 12},
		}})
	case "storage/contracts/list":
		answer(w, map[string]any{"contracts": r.contracts(args.Get("arg"))})
	default:
		return false
	}
	return true
}

func (r *RPC) contracts(role string) (all []map[string]any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, s := range r.sessions {
		for i := range s.shards {
			all = append(all, map[string]any{
				"contract_id": fmt.Sprint(id, ",", i), "file_hash": s.cid, "shard_hash": s.cid, "host_id": PeerID, "status": 3,
				"start_time": "2026-11-25T00:00:00Z", "end_time": "2026-12-25T00:00:00Z", "unit_price": 125000, "shard_size": 262158, "role": role,
			})
		}
	}
	return all
}

func (r *RPC) upload(w http.ResponseWriter, q *http.Request) {
	args := q.URL.Query()
	c, err := cid.Decode(args.Get("arg"))
	days, err2 := strconv.Atoi(args.Get("storage-length"))
	switch {
	case err != nil || err2 != nil:
		r.fail(w, "invalid cid")
		return
	case days < 30:
		r.fail(w, fmt.Sprintf("invalid storage len. want: >= 30, got: %d", days))
		return
	}
	shards := r.shards(q.Context(), c)
	if shards == 0 { // not Reed-Solomon
		copies, _ := strconv.Atoi(args.Get("copy"))
		shards = copies + 1
	}
	if args.Get("host-select-mode") == "custom" && strings.Count(args.Get("host-selection"), ",")+1 != shards {
		r.fail(w, "custom mode hosts length must match shard hashes length")
		return
	}
	r.mu.Lock()
	id := fmt.Sprintf("00000000-0000-4000-8000-%012d", len(r.sessions)+1)
	r.sessions[id] = &session{cid: c.String(), shards: shards}
	r.mu.Unlock()
	if f := r.behaviour().OnUpload; f != nil {
		f()
	}
	if q.Context().Err() == nil {
		answer(w, map[string]any{"ID": id})
	}
}

// shards counts those of a Reed-Solomon object; 0 if it is none.
func (r *RPC) shards(ctx context.Context, c cid.Cid) int {
	root, err := r.Block(ctx, c)
	if links := linksOf(root); err == nil && len(links) == 2 {
		head, _ := r.Block(ctx, links[0])
		coded, _ := r.Block(ctx, links[1])
		if bytes.Contains(head, []byte(`"NumData":`)) {
			return len(linksOf(coded))
		}
	}
	return 0
}

func (r *RPC) status(w http.ResponseWriter, id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.sessions[id]
	if s == nil {
		answer(w, map[string]any{"Status": "init", "Message": "session not found", "Shards": map[string]any{}})
		return
	}
	state, message := steps[min(s.asked, len(steps)-1)], ""
	if state == r.how.FailAt || s.asked < 0 {
		s.asked = -2 // for ever
		state, message = "error", "not enough hosts \x1b[31mreached\nit"
	}
	s.asked++
	shards := map[string]any{}
	for i := range s.shards {
		shards[fmt.Sprintf("%s:%s:%d", id, s.cid, i)] = map[string]any{
			"ContractID": "", "Price": 0, "Host": PeerID, "Status": state, "Message": message, "AdditionalInfo": "",
		}
	}
	answer(w, map[string]any{"Status": state, "Message": message, "AdditionalInfo": "", "FileHash": s.cid, "Shards": shards})
}

// wallet are the commands of cheque/, vault/ and stake/.
func (r *RPC) wallet(w http.ResponseWriter, q *http.Request, command string) bool {
	big := json.Number("123456789012345678901234567")
	switch command {
	case "cheque/chaininfo": // that of a real node holds the key too
		answer(w, map[string]any{"chain_id": 199, "node_addr": VaultAddr, "vault_addr": VaultAddr})
	case "cheque/price-all":
		how := r.behaviour()
		all := map[string]any{}
		for _, token := range []string{"WBTT", "TRX", "USDD", "USDT"} {
			all[token] = map[string]any{"token": VaultAddr, "token_str": token, "price": json.Number(how.Price), "rate": json.Number(how.Rate), "total_price": 0}
		}
		answer(w, map[string]any{"WBTT": all["WBTT"], "TRX": all["TRX"], "USDD": all["USDD"], "USDT": all["USDT"]})
	case "cheque/stats-all":
		stats := map[string]any{
			"total_issued_count": 2, "total_issued": big, "total_issued_cashed": 5, "total_received": big, "total_received_uncashed": 7,
			"total_received_count": 3, "total_received_cashed_count": 1, "total_received_daily_uncashed": 0, "private_key": SecretKey,
		}
		answer(w, map[string]any{"WBTT": stats})
	case "cheque/receivelist", "cheque/sendlist":
		answer(w, map[string]any{"Len": 1, "Cheques": []map[string]any{
			{"PeerID": PeerID, "Token": VaultAddr, "Beneficiary": VaultAddr, "Vault": VaultAddr, "Payout": big, "CashedAmount": 5, "key": SecretKey},
		}})
	case "vault/address":
		answer(w, map[string]any{"addr": VaultAddr})
	case "vault/balance":
		answer(w, map[string]any{"balance": big})
	case "stake/query":
		answer(w, map[string]any{"amount": big, "locktime": 1790000000})
	default:
		return false
	}
	return true
}
