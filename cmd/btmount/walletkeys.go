package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"github.com/urfave/cli/v2"

	"github.com/btmount/btmount/wallet"
	"github.com/btmount/btmount/wallet/durable"
)

func keyCommands() []*cli.Command {
	return []*cli.Command{
		{
			Name: "new", Usage: "make an account",
			Description: `Its key is encrypted with the passphrase (Web3 Secret Storage, scrypt), and nobody can get
it back without: keep the passphrase and a copy of the file.`,
			Flags: walletFlags(signFlags()...), Action: withWallet(0, walletNew),
		},
		{
			Name: "import", Usage: "take over an account from elsewhere",
			Description: `Give one of the three files; - is stdin. A key file of another wallet keeps its passphrase.
Of a mnemonic (BIP-39, English) the account m/44'/60'/0'/0/INDEX is taken; a passphrase of
the mnemonic itself is not supported. What is imported is encrypted here; the file that you
gave stays as it is.`,
			Flags: walletFlags(append(signFlags(),
				stringFlag("key-file", "", "`FILE` with a private key, 64 hexadecimal digits (mode 0600)"),
				stringFlag("keystore", "", "`FILE` of geth or another wallet, Web3 Secret Storage (mode 0600)"),
				stringFlag("mnemonic-file", "", "`FILE` with 12 to 24 words (mode 0600)"),
				stringFlag("index", "0", "`INDEX` of the account of a mnemonic"),
			)...),
			Action: withWallet(0, walletImport),
		},
		{
			Name: "export", Usage: "write an account's key to a file",
			Description: `It is written as it is kept, encrypted with its passphrase, which is checked first. With
--reveal the key itself is written, in hexadecimal digits: who has that has the money.`,
			Flags: walletFlags(append(signFlags(), fromFlag(),
				stringFlag("to", "", "`FILE` to write, of mode 0600, which must not be there yet"),
				boolFlag("reveal", "write the private key itself, not encrypted"),
			)...),
			Action: withWallet(0, walletExport),
		},
		{
			Name: "list", Usage: "list the accounts, and their files",
			Flags: walletFlags(), Action: withWallet(0, walletList),
		},
		{
			Name: "address", Usage: "tell the address of the account",
			Flags: walletFlags(fromFlag()), Action: withWallet(0, walletAddress),
		},
	}
}

func walletNew(ctx context.Context, a *walletAsk) error {
	k, err := a.keys()
	if err != nil {
		return err
	}
	pass, err := a.passphrase(ctx, "the new account", true)
	if err != nil {
		return err
	}
	defer clear(pass)
	acc, err := k.New(pass)
	if err != nil {
		return err
	}
	return a.tellAccount(acc)
}

func (a *walletAsk) tellAccount(acc wallet.Account) error {
	return a.tell(acc, func(w io.Writer) { fmt.Fprintf(w, "account\t%s\nfile\t%s\n", acc.Address, acc.Path) })
}

const maxSecret = 16 << 10 // bytes of a file that is imported

func walletImport(ctx context.Context, a *walletAsk) error {
	from, flag := "", ""
	for _, f := range []string{"key-file", "keystore", "mnemonic-file"} {
		if v := a.c.String(f); v != "" {
			if flag != "" {
				return usage(fmt.Errorf("give --%s or --%s, not both", flag, f))
			}
			from, flag = v, f
		}
	}
	if flag == "" {
		return usage(errors.New("say what to import: --key-file, --keystore or --mnemonic-file"))
	}
	index, err := strconv.ParseUint(a.c.String("index"), 10, 31)
	if err != nil {
		a.wrong("index", a.c.String("index"), "give a number from 0")
		return a.reader.err
	}
	k, err := a.keys()
	if err != nil {
		return err
	}
	var text []byte
	if from == "-" {
		if a.c.String("passphrase-fd") == "0" {
			return usage(errors.New("stdin cannot be the key and the passphrase at a time"))
		}
		text, err = io.ReadAll(io.LimitReader(os.Stdin, maxSecret))
	} else {
		text, err = durable.ReadSecret(from, maxSecret)
	}
	if err != nil {
		return fmt.Errorf("--%s: %w", flag, err)
	}
	defer clear(text)
	pass, err := a.passphrase(ctx, "the account", flag != "keystore")
	if err != nil {
		return err
	}
	defer clear(pass)
	var acc wallet.Account
	switch flag {
	case "key-file":
		acc, err = k.ImportHex(text, pass)
	case "keystore":
		acc, err = k.ImportKeystore(text, pass)
	default:
		acc, err = k.ImportMnemonic(text, uint32(index), pass)
	}
	if err != nil {
		return err
	}
	return a.tellAccount(acc)
}

func walletExport(ctx context.Context, a *walletAsk) error {
	to := a.c.String("to")
	if to == "" {
		return usage(errors.New("say where to write it: --to FILE"))
	}
	acc, k, err := a.account()
	if err != nil {
		return err
	}
	if !a.json {
		fmt.Fprintln(a.err, "who has the file", map[bool]string{true: "has the money", false: "and the passphrase has the money"}[a.c.Bool("reveal")])
	}
	pass, err := a.passphrase(ctx, acc.Address.Hex(), false)
	if err != nil {
		return err
	}
	defer clear(pass)
	key, err := k.Unlock(acc.Address, pass)
	if err != nil {
		return err
	}
	defer key.Close()
	text, err := durable.ReadSecret(acc.Path, maxSecret)
	if err != nil {
		return err
	}
	if a.c.Bool("reveal") {
		text = append(key.Hex(), '\n')
		defer clear(text)
	}
	if to, err = filepath.Abs(to); err != nil {
		return err
	}
	if err := durable.WriteFile(to, text, false); err != nil {
		return fmt.Errorf("%s: %w", to, bare(err))
	}
	return a.tellAccount(wallet.Account{Address: acc.Address, Path: to})
}

func walletList(_ context.Context, a *walletAsk) error {
	k, err := a.keys()
	if err != nil {
		return err
	}
	all, err := k.List()
	if err != nil {
		return err
	}
	return a.tell(map[string]any{"accounts": list(all)}, func(w io.Writer) {
		for _, acc := range all {
			fmt.Fprintf(w, "%s\t%s\n", acc.Address, acc.Path)
		}
	})
}

func walletAddress(_ context.Context, a *walletAsk) error {
	acc, _, err := a.account()
	if err != nil {
		return err
	}
	return a.tell(map[string]any{"address": acc.Address.Hex()}, func(w io.Writer) { fmt.Fprintln(w, acc.Address) })
}
