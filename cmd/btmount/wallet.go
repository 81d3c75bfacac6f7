package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"github.com/btmount/btmount/wallet"
	"github.com/btmount/btmount/wallet/chain"
	"github.com/btmount/btmount/wallet/durable"
)

func walletCommand() *cli.Command {
	return &cli.Command{
		Name: "wallet", Usage: "keep BTT of your own: keys, balances, transfers, limits and a ledger", ArgsUsage: "COMMAND",
		Description: `Keys, ledger and journal lie in wallet/ of the state folder, which nobody else may enter.
Nothing is spent but what you agree to: it is shown first, with its fee.`,
		Subcommands: append(append(keyCommands(), payCommands()...), accountCommands()...),
	}
}

// walletFlags are those of every command of a wallet.
func walletFlags(more ...cli.Flag) []cli.Flag {
	return join(
		under("What", more...),
		under("Which wallet, and how to answer",
			stringFlag("state-dir", stateDir(), "`FOLDER` whose folder wallet has keys, ledger and journal"),
			boolFlag("json", jsonUsage),
			configFlag(),
		),
	)
}

// signFlags are those of commands that need a key.
func signFlags() []cli.Flag {
	return []cli.Flag{
		stringFlag("passphrase-file", "", "`FILE` whose first line is the passphrase; only you may be able to read it (mode 0600)"),
		stringFlag("passphrase-fd", "", "`NUMBER` of an open file descriptor to read the passphrase from"),
	}
}

// payFlags are those of commands that spend.
func payFlags() []cli.Flag {
	return append(signFlags(),
		fromFlag(),
		boolFlag("dry-run", "show what it would do and cost, and sign nothing"),
		boolFlag("yes", "do not ask before it is signed"),
	)
}

func fromFlag() cli.Flag {
	return stringFlag("from", "", "`ADDRESS` of the account, if there are several")
}

// walletAsk is one command about the wallet.
type walletAsk struct {
	*reader
	dir  string
	json bool
	out  io.Writer
	err  io.Writer
}

// openKeys opens the keys; tests have weaker ones.
var openKeys = wallet.OpenKeys

// withWallet reads the flags that all have. f finds the folder of the wallet there.
func withWallet(arguments int, f func(ctx context.Context, a *walletAsk) error) cli.ActionFunc {
	return func(c *cli.Context) error {
		if err := applyConfig(c); err != nil {
			return err
		}
		a := &walletAsk{reader: &reader{c: c}, json: c.Bool("json"), out: c.App.Writer, err: c.App.ErrWriter}
		state := a.folder("state-dir")
		if a.reader.err != nil {
			return a.reader.err
		}
		if arguments >= 0 && c.NArg() != arguments {
			need := c.Command.ArgsUsage
			if need == "" {
				need = "no arguments"
			}
			return usage(fmt.Errorf("%s takes %s; see %s --help", c.Command.HelpName, need, c.Command.HelpName))
		}
		a.dir = filepath.Join(state, "wallet")
		if err := durable.Folder(a.dir); err != nil {
			return err
		}
		err := f(c.Context, a)
		if errors.Is(err, context.Canceled) && c.Context.Err() != nil {
			return errors.New("interrupted")
		}
		return err
	}
}

func (a *walletAsk) keys() (*wallet.Keys, error) { return openKeys(filepath.Join(a.dir, "keys")) }

// account is that of --from, or the only one.
func (a *walletAsk) account() (wallet.Account, *wallet.Keys, error) {
	k, err := a.keys()
	if err != nil {
		return wallet.Account{}, nil, err
	}
	var from *wallet.Address
	if v := a.c.String("from"); v != "" {
		at, _, err := wallet.ParseAddress(v)
		if err != nil {
			a.wrong("from", v, err.Error())
			return wallet.Account{}, nil, a.reader.err
		}
		from = &at
	}
	acc, err := k.Only(from)
	return acc, k, err
}

// profile is the chain that was chosen, bttc if none was.
func (a *walletAsk) profile() (chain.Profile, error) {
	text, err := os.ReadFile(filepath.Join(a.dir, "chain.json"))
	if errors.Is(err, os.ErrNotExist) {
		return chain.Profiles()[0], nil
	}
	if err != nil {
		return chain.Profile{}, err
	}
	p, err := chain.ParseProfile(text)
	if err != nil {
		return p, fmt.Errorf("%s: %w; choose a chain anew with btmount wallet chain use", filepath.Join(a.dir, "chain.json"), err)
	}
	return p, nil
}

func (a *walletAsk) ledger() (*wallet.Ledger, error) {
	return wallet.OpenLedger(filepath.Join(a.dir, "ledger"))
}

// onChain opens all that is needed to send, for as long as f runs.
func (a *walletAsk) onChain(f func(s *chain.Sender) error) error {
	p, err := a.profile()
	if err != nil {
		return err
	}
	client, err := chain.NewClient(p)
	if err != nil {
		return err
	}
	defer client.Close()
	l, err := a.ledger()
	if err != nil {
		return err
	}
	defer l.Close()
	j, err := chain.OpenJournal(filepath.Join(a.dir, "journal"))
	if err != nil {
		return err
	}
	defer j.Close()
	return f(&chain.Sender{Client: client, Journal: j, Ledger: l})
}

const maxPassphrase = 4096 // bytes

// passphrase reads it from where the flags say, or asks on the terminal. It is never taken
// from an argument or from the environment, which others can see. anew asks twice.
func (a *walletAsk) passphrase(ctx context.Context, what string, anew bool) ([]byte, error) {
	file, fd := a.c.String("passphrase-file"), a.c.String("passphrase-fd")
	switch {
	case file != "" && fd != "":
		return nil, usage(errors.New("give --passphrase-file or --passphrase-fd, not both"))
	case file != "":
		text, err := durable.ReadSecret(file, maxPassphrase)
		if err != nil {
			return nil, fmt.Errorf("--passphrase-file: %w", err)
		}
		return firstLine(text, "--passphrase-file")
	case fd != "":
		n, err := strconv.Atoi(fd)
		if err != nil || n < 0 || n == 1 || n == 2 || n > 1<<16 {
			a.wrong("passphrase-fd", fd, "give the number of a file descriptor that can be read, such as 3")
			return nil, a.reader.err
		}
		f := os.NewFile(uintptr(n), "passphrase")
		defer f.Close()
		text, err := bufio.NewReaderSize(io.LimitReader(f, maxPassphrase), maxPassphrase).ReadBytes('\n')
		if err != nil && err != io.EOF {
			return nil, fmt.Errorf("--passphrase-fd %d: %w", n, bare(err))
		}
		return firstLine(text, "--passphrase-fd")
	case !terminal(os.Stdin):
		return nil, usage(errors.New("nobody can be asked here for the passphrase; give --passphrase-file or --passphrase-fd"))
	}
	one, err := a.secret(ctx, "Passphrase for "+what+": ")
	if err != nil || !anew {
		return one, err
	}
	two, err := a.secret(ctx, "Once more: ")
	defer clear(two)
	if err == nil && string(one) != string(two) {
		err = errors.New("the two are not the same; nothing was written")
	}
	return one, err
}

func firstLine(text []byte, where string) ([]byte, error) {
	line, rest, _ := bytes.Cut(text, []byte("\n"))
	clear(rest)
	if line = bytes.TrimSuffix(line, []byte("\r")); len(line) == 0 {
		return nil, fmt.Errorf("%s: the first line is empty; it should be the passphrase", where)
	}
	return line, nil
}

// secret asks on the terminal, which does not show what is typed.
func (a *walletAsk) secret(ctx context.Context, prompt string) ([]byte, error) {
	fd := int(os.Stdin.Fd())
	before, err := term.GetState(fd)
	if err != nil {
		return nil, err
	}
	fmt.Fprint(a.err, prompt)
	defer fmt.Fprintln(a.err)
	type read struct {
		text []byte
		err  error
	}
	done := make(chan read, 1)
	go func() { // ends with the line, or with the process
		text, err := term.ReadPassword(fd)
		done <- read{text, err}
	}()
	select {
	case r := <-done:
		if r.err == nil && len(r.text) == 0 {
			r.err = errors.New("no passphrase was given")
		}
		return r.text, r.err
	case <-ctx.Done():
		_ = term.Restore(fd, before) // else the terminal stays mute
		return nil, errors.New("interrupted")
	}
}

// agreed asks whether to go on, unless that is said by --yes.
func (a *walletAsk) agreed(question string) error {
	if a.c.Bool("yes") {
		return nil
	}
	if !terminal(os.Stdin) {
		return usage(errors.New("nobody can be asked here whether to do it; give --yes"))
	}
	fmt.Fprintf(a.err, "%s [y/N] ", question)
	line, err := bufio.NewReader(io.LimitReader(os.Stdin, 1024)).ReadString('\n')
	if err != nil && line == "" {
		return errors.New("no answer; nothing was signed")
	}
	if answer := strings.ToLower(strings.TrimSpace(line)); answer != "y" && answer != "yes" {
		return errors.New("nothing was signed")
	}
	return nil
}

// tell prints a line of JSON, or lines for people.
func (a *walletAsk) tell(result any, lines func(w io.Writer)) error {
	if a.json {
		return json.NewEncoder(a.out).Encode(result)
	}
	t := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	lines(t)
	return t.Flush()
}

// amount reads an amount; one without unit is in BTT, or in that of the flag --token.
func (a *walletAsk) amount(text string, unit wallet.Unit) (wallet.Amount, wallet.Unit, error) {
	n, u, err := wallet.ParseAmount(text, unit)
	if err != nil {
		return n, u, usage(fmt.Errorf("amount %s: %w", strconv.Quote(text), err))
	}
	if n.IsZero() {
		return n, u, usage(fmt.Errorf("amount %s: it is nothing", strconv.Quote(text)))
	}
	return n, u, nil
}

// since reads how far back: a time such as 36h, 2d or 1w, or a day such as 2026-01-31.
func (r *reader) since(flag string, now time.Time) time.Time {
	v := r.c.String(flag)
	if v == "" {
		return time.Time{}
	}
	if day, err := time.ParseInLocation(time.DateOnly, v, time.Local); err == nil {
		return day
	}
	unit, text := time.Duration(0), v
	if s, ok := strings.CutSuffix(v, "d"); ok {
		unit, text = 24*time.Hour, s
	} else if s, ok := strings.CutSuffix(v, "w"); ok {
		unit, text = 7*24*time.Hour, s
	}
	if unit > 0 {
		if n, err := strconv.ParseUint(text, 10, 16); err == nil {
			return now.Add(-time.Duration(min(n, 10_000)) * unit)
		}
	} else if d, err := time.ParseDuration(v); err == nil && d >= 0 {
		return now.Add(-d)
	}
	r.wrong(flag, v, "give a time such as 36h, 2d or 1w, or a day such as 2026-01-31")
	return time.Time{}
}
