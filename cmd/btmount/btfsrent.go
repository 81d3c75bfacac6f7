package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/btmount/btmount/btfs"
	"github.com/btmount/btmount/btfs/rent"
	"github.com/btmount/btmount/btfs/rpc"
)

func rentCommands() []*cli.Command {
	return []*cli.Command{
		{
			Name: "rent", Usage: "have hosts store an object, and pay them, through your node", ArgsUsage: "CID",
			Description: `It takes a node in full mode, whose vault pays. Nothing is spent without --max, and nothing
if the price is above it. --dry-run tells the price and spends nothing. What is added with
--reed-solomon is stored as its 30 shards; other objects whole, and --copies times more.

The limit is held against the price that the node tells just before: go-btfs 4.1.0 itself
takes no limit, and pays what its oracle says a moment later.

What is rented is written down before the node is asked, and btmount btfs rentals shows it:
if btmount ends meanwhile, the rental goes on, and is not begun twice.`,
			Flags: nodeFlags(append(spendFlags(), stringFlag("copies", "0", "so `MANY` more hosts store all of it, if it is not Reed-Solomon"),
				listFlag("host", "`ID` of a host to store it, one for each shard, instead of those that the node chooses"))...),
			Action: withNode(btfsRent),
		},
		{
			Name: "rentals", Usage: "list what was rented, and how far it is",
			Description: `With --btfs-node each rental of that node that is not complete is asked for.`,
			Flags: nodeFlags(
				stateFlag(),
				boolFlag("wait", "return when all of it is there, and show how far it is"),
				stringFlag("forget", "", "strike the rental of this `ID` from the list; what it rents goes on"),
			),
			Action: nodeFree(btfsRentals),
		},
		{
			Name: "renew", Usage: "pay the hosts of an object for more days", ArgsUsage: "CID|ID",
			Description: `ID is that of btmount btfs rentals. The price is that of all contracts that the node shows
of the object, or of its shards if it shows fewer. Each host is paid after the other: if the
node fails in the middle, some are paid.`,
			Flags:  nodeFlags(spendFlags()...),
			Action: withNode(btfsRenew),
		},
	}
}

// spendFlags are those of commands that cost money.
func spendFlags() []cli.Flag {
	return []cli.Flag{
		stringFlag("days", "30", "pay for so `MANY` days"),
		tokenFlag(),
		stringFlag("max", "", "spend at most this `AMOUNT`, with its unit, such as 12.5WBTT; needed to spend anything"),
		boolFlag("dry-run", "tell the price, and spend nothing"),
		boolFlag("yes", "do not ask before it is spent"),
		boolFlag("again", "also if it was rented, or renewed, and that is not known to have ended: it is paid once more"),
		stateFlag(),
	}
}

func tokenFlag() cli.Flag {
	return stringFlag("token", "WBTT", "`TOKEN` that is paid in: WBTT, TRX, USDD or USDT")
}

// spending is what spendFlags say.
type spending struct {
	days   int
	token  rpc.Token
	limit  rpc.Amount
	dryRun bool
	given  bool // a limit
}

// spending reads them. Without a limit nothing is asked.
func (a *nodeAsk) spending() (s spending, err error) {
	s.days, s.dryRun = a.number("days", 3650), a.c.Bool("dry-run")
	if s.token, err = rpc.ParseToken(a.c.String("token")); err != nil {
		a.wrong("token", a.c.String("token"), err.Error())
	}
	if v := a.c.String("max"); v != "" {
		s.given = true
		var unit rpc.Token
		if s.limit, unit, err = rpc.ParseAmount(v); err != nil {
			a.wrong("max", v, err.Error())
		} else if unit != s.token {
			a.wrong("max", v, fmt.Sprintf("it is paid in %s: give the limit in that", s.token))
		}
	}
	if a.reader.err != nil {
		return s, a.reader.err
	}
	if !s.given && !s.dryRun {
		return s, usage(errors.New("a limit is needed to spend anything: --max AMOUNT, such as 12.5WBTT; --dry-run tells the price"))
	}
	if !s.dryRun && !a.c.Bool("yes") && !terminal(os.Stdin) {
		return s, usage(errors.New("nobody can be asked here whether to spend it; give --yes"))
	}
	return s, nil
}

// ledger opens the account of rentals.
func (r *reader) ledger() (*rent.Ledger, error) {
	dir := r.folder("state-dir")
	if r.err != nil {
		return nil, r.err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	return rent.OpenLedger(filepath.Join(dir, "rentals"))
}

type btfsPlan struct {
	CID       string     `json:"cid"`
	Shards    int        `json:"shards"`
	ShardSize int64      `json:"shard_size"`
	Days      int        `json:"days"`
	Token     rpc.Token  `json:"token"`
	Each      rpc.Amount `json:"each"`
	Total     rpc.Amount `json:"total"`
	Limit     rpc.Amount `json:"limit,omitzero"`
	Hosts     []string   `json:"hosts,omitempty"`
	Node      string     `json:"node"`
}

func btfsRent(ctx context.Context, a *nodeAsk) error {
	s, err := a.spending()
	if err != nil {
		return err
	}
	copies := 0
	if v := a.c.String("copies"); v != "0" {
		copies = a.number("copies", 100)
	}
	hosts := a.list("host")
	for _, h := range hosts {
		if strings.ContainsAny(h, ",") {
			a.wrong("host", h, "give one peer id, and repeat the flag")
		}
	}
	o, err := a.one("CID")
	if err == nil {
		err = a.reader.err
	}
	if err != nil {
		return err
	}
	plan, err := a.plan(ctx, o, s, copies)
	if err != nil {
		return err
	}
	if len(hosts) > 0 && len(hosts) != plan.Shards {
		return usage(fmt.Errorf("--host: %d given, and there are %d shards", len(hosts), plan.Shards))
	}
	plan.Copies, plan.Hosts = copies, hosts
	to := fmt.Sprintf("%d hosts that your node chooses", plan.Shards)
	if len(hosts) > 0 {
		to = strings.Join(hosts, ", ")
	}
	yes, err := a.agreed(plan, s, "Rent", to)
	if err != nil || !yes {
		return err
	}
	ledger, err := a.ledger()
	if err != nil {
		return err
	}
	who, err := a.node.ID(ctx)
	if err != nil {
		return err
	}
	if !a.json {
		fmt.Fprintln(a.out, "your node looks for hosts, which may take minutes")
	}
	r, err := ledger.Rent(ctx, a.node, who, plan, s.limit, a.c.Bool("again"))
	if err != nil {
		return a.afterwards(ctx, r, err)
	}
	if !a.json {
		fmt.Fprintf(a.out, "rental %s has begun: session %s\n", r.ID, r.Session)
	}
	return a.watch(ctx, ledger, r)
}

// one reads the one argument, a CID.
func (a *nodeAsk) one(what string) (btfs.Path, error) {
	if a.c.NArg() != 1 {
		return btfs.Path{}, usage(fmt.Errorf("one object is needed: %s %s", a.c.Command.HelpName, what))
	}
	all, err := a.objects()
	if err != nil {
		return btfs.Path{}, err
	}
	return all[0], nil
}

// plan prices an object. What it consists of is read from the node, and verified.
func (a *nodeAsk) plan(ctx context.Context, o btfs.Path, s spending, copies int) (rent.Plan, error) {
	price, err := a.node.Price(ctx, s.token) // it also tells whether the node can rent at all
	if err != nil {
		return rent.Plan{}, err
	}
	parts, err := rent.Survey(ctx, a.node, o.CID, copies)
	if err != nil {
		return rent.Plan{}, fmt.Errorf("%s: %w", o, err)
	}
	return rent.NewPlan(o.CID, parts, s.days, price)
}

// agreed shows what is about to be spent on what and to whom, and asks whether to go on.
func (a *nodeAsk) agreed(p rent.Plan, s spending, verb, to string) (bool, error) {
	show := btfsPlan{p.CID.String(), p.Shards, p.ShardSize, p.Days, s.token, p.Each, p.Total, s.limit, p.Hosts, a.cfg.Node}
	if a.json {
		if err := json.NewEncoder(a.out).Encode(map[string]any{"plan": show}); err != nil {
			return false, err
		}
	} else {
		fmt.Fprintf(a.out, "what    %s, %s of %d bytes, for %s\n", show.CID, count(p.Shards, "shard"), p.ShardSize, count(p.Days, "day"))
		fmt.Fprintf(a.out, "price   %s, %s for each shard (%s per GiB and day, times %s smallest units)\n", p.Total.In(s.token), p.Each.In(s.token), p.Price.PerGiBDay, p.Price.Rate)
		if s.given {
			fmt.Fprintf(a.out, "limit   %s\n", s.limit.In(s.token))
		}
		fmt.Fprintf(a.out, "to      %s\nnode    %s\n", to, a.cfg.Node)
	}
	if s.given {
		if err := p.Within(s.limit); err != nil {
			return false, err
		}
	}
	if s.dryRun {
		return false, nil
	}
	if a.c.Bool("yes") {
		return true, nil
	}
	fmt.Fprintf(a.err, "%s it? [y/N] ", verb)
	line, err := bufio.NewReader(io.LimitReader(os.Stdin, 1024)).ReadString('\n')
	if err != nil && line == "" {
		return false, errors.New("no answer; nothing was spent")
	}
	if answer := strings.ToLower(strings.TrimSpace(line)); answer != "y" && answer != "yes" {
		return false, errors.New("nothing was spent")
	}
	return true, nil
}

// afterwards says what is known of a rental that went wrong.
func (a *nodeAsk) afterwards(ctx context.Context, r rent.Rental, err error) error {
	if ctx.Err() != nil {
		err = errors.New("interrupted")
	}
	if r.State == rent.Unknown {
		return fmt.Errorf("%w; whether the node rents is not known: look at btmount btfs node contracts before you try again (%s is written down as unknown)", err, r.ID)
	}
	return err
}

// watch shows how far every shard is, until all are complete.
func (a *nodeAsk) watch(ctx context.Context, l *rent.Ledger, r rent.Rental) error {
	was := map[string]string{}
	r, err := l.Watch(ctx, a.node, r, func(r rent.Rental, s rpc.Session) { a.progress(r, s, was) })
	if ctx.Err() != nil {
		return fmt.Errorf("interrupted; rental %s goes on at the node: btmount btfs rentals --wait", r.ID)
	}
	if err != nil {
		return fmt.Errorf("%w; rental %s may go on at the node: btmount btfs rentals --wait", err, r.ID)
	}
	if a.json {
		if err := json.NewEncoder(a.out).Encode(r); err != nil {
			return err
		}
	}
	return a.ended(r)
}

// ended says what became of a rental.
func (a *nodeAsk) ended(r rent.Rental) error {
	if r.State != rent.Complete {
		return fmt.Errorf("rental %s: %s: %s (%d of %s complete); some of it may be paid: btmount btfs node contracts", r.ID, r.State, r.Said, r.Done, count(r.Shards, "shard"))
	}
	if !a.json {
		fmt.Fprintf(a.out, "rental %s is complete: %s, %s\n", r.ID, count(r.Shards, "shard"), r.Price.In(r.Token))
	}
	return nil
}

// progress tells of the shards whose state changed.
func (a *nodeAsk) progress(r rent.Rental, s rpc.Session, was map[string]string) {
	if a.json {
		_ = json.NewEncoder(a.out).Encode(map[string]any{"progress": map[string]any{"id": r.ID, "step": s.State, "done": r.Done, "shards": r.Shards}})
		return
	}
	if was[""] != s.State {
		was[""] = s.State
		fmt.Fprintf(a.out, "%s: %s, %d of %s complete\n", r.ID, s.State, r.Done, count(max(r.Shards, len(s.Shards)), "shard"))
	}
	for i, sh := range s.Shards {
		if line := strings.TrimRight(sh.State+" "+sh.Message, " "); was[sh.ID] != line {
			was[sh.ID] = line
			fmt.Fprintf(a.out, "  shard %d at %s: %s\n", i+1, orDash(sh.Host), line)
		}
	}
}

// btfsRentals needs no node to list what was written down.
func btfsRentals(ctx context.Context, a *nodeAsk) error {
	ledger, err := a.ledger()
	if err != nil {
		return err
	}
	if err := a.none(); err != nil {
		return err
	}
	if id := a.c.String("forget"); id != "" {
		return ledger.Forget(id)
	}
	if a.node == nil && a.c.Bool("wait") {
		return usage(errors.New("--wait: name the node that they are at, with --btfs-node"))
	}
	return a.rentals(ctx, ledger)
}

func (a *nodeAsk) rentals(ctx context.Context, l *rent.Ledger) error {
	all, err := l.All()
	if err != nil {
		return err
	}
	var failed severalErrors
	who := ""
	if a.node != nil {
		if who, err = a.node.ID(ctx); err != nil {
			failed = append(failed, err)
		}
	}
	for i, r := range all {
		if who == "" || r.Node != who || r.State != rent.Running {
			continue
		}
		if a.c.Bool("wait") {
			if err := a.watch(ctx, l, r); err != nil {
				failed = append(failed, err)
			}
			if all[i], err = l.Find(r.ID); err != nil {
				return err
			}
		} else if all[i], _, err = l.Look(ctx, a.node, r); err != nil {
			failed = append(failed, fmt.Errorf("rental %s: %w", r.ID, err))
		}
		if ctx.Err() != nil {
			return failed
		}
	}
	if all == nil {
		all = []rent.Rental{}
	}
	err = a.show(map[string]any{"rentals": all}, func(w io.Writer) {
		for _, r := range all {
			step := string(r.State)
			if r.State == rent.Running {
				step = fmt.Sprintf("%s %d/%d", orDash(r.Step), r.Done, r.Shards)
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", r.ID, r.Kind, step, r.CID, count(r.Days, "day"), r.Price.In(r.Token), r.Began.Local().Format(time.DateTime), r.Said)
		}
	})
	for _, r := range all {
		if r.State == rent.Unknown && !a.json {
			fmt.Fprintf(a.err, "btmount: rental %s: the node was asked and its answer was not heard, so it may be rented and paid%s; strike it out with --forget %s\n", r.ID, a.evidence(ctx, r, who), r.ID)
		}
	}
	if err == nil && failed != nil {
		err = failed
	}
	return err
}

// evidence is what the node shows of an object of which nobody knows whether it is rented.
func (a *nodeAsk) evidence(ctx context.Context, r rent.Rental, who string) string {
	if who == r.Node {
		if shown, err := a.contracts(ctx, r.CID); err == nil {
			return fmt.Sprintf(": it shows %s of this object, of whenever", count(shown, "contract"))
		}
	}
	return ": look at btmount btfs node contracts"
}

// contracts counts the contracts that the node shows of an object.
func (a *nodeAsk) contracts(ctx context.Context, id string) (shown int, err error) {
	all, err := a.node.Contracts(ctx, "renter")
	for _, k := range all {
		if string(k.FileHash) == id {
			shown++
		}
	}
	return shown, err
}

func btfsRenew(ctx context.Context, a *nodeAsk) error {
	s, err := a.spending()
	if err != nil {
		return err
	}
	if a.c.NArg() != 1 {
		return usage(errors.New("one object is needed: btmount btfs renew CID|ID"))
	}
	ledger, err := a.ledger()
	if err != nil {
		return err
	}
	who, err := a.node.ID(ctx)
	if err != nil {
		return err
	}
	text, shards := a.c.Args().First(), 0
	all, err := ledger.All()
	if err != nil {
		return err
	}
	for _, r := range all { // what was rented several times is renewed as often
		if r.ID == text {
			text = r.CID
		}
	}
	o, err := btfs.ParsePath(text)
	if err != nil {
		return usage(fmt.Errorf("%w; or give the id of a rental, see btmount btfs rentals", err))
	}
	for _, r := range all {
		if r.CID == o.CID.String() && r.Node == who && r.Kind == "rent" && r.State != rent.Failed {
			shards += r.Shards
		}
	}
	plan, err := a.plan(ctx, o, s, 0)
	if err != nil {
		return err
	}
	shown, err := a.contracts(ctx, o.CID.String())
	if err != nil {
		return err
	}
	plan.Shards = max(plan.Shards, shards, shown)
	plan.Total = plan.Each.Times(rpc.Units(int64(plan.Shards)))
	yes, err := a.agreed(plan, s, "Renew", "the hosts that store it")
	if err != nil || !yes {
		return err
	}
	r, err := ledger.Renew(ctx, a.node, who, plan, s.limit, a.c.Bool("again"))
	if err != nil {
		return a.afterwards(ctx, r, err)
	}
	if r.Said != "" {
		fmt.Fprintln(a.err, "btmount:", oneLine(errors.New(r.Said)))
	}
	return a.answer(r, fmt.Sprintf("%s is renewed for %s: %s", r.CID, count(r.Days, "day"), r.Price.In(r.Token)))
}
