package main

import (
	"bytes"
	"fmt"
	"os"

	"golang.org/x/term"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/offline"
)

// minPassphrase is the fewest bytes of a new passphrase.
const minPassphrase = 8

// passphrase returns where the passphrase of a key comes from: a file, the
// environment or the person at the terminal, who types a new one twice. It asks
// once and remembers, because both keys of a holder have the same.
func (c *cli) passphrase(file, whose string) offline.Passphrase {
	var known []byte
	return func(confirm bool) ([]byte, error) {
		if known != nil {
			return known, nil
		}
		p, err := c.readPassphrase(file, whose, confirm)
		if err != nil {
			return nil, err
		}
		if confirm && len(p) < minPassphrase {
			return nil, passphraseError("choose a longer one", "a passphrase has at least %d bytes", minPassphrase)
		}
		known = p
		return p, nil
	}
}

func (c *cli) readPassphrase(file, whose string, confirm bool) ([]byte, error) {
	if file != "" {
		b, err := os.ReadFile(file)
		if err != nil {
			return nil, passphraseError("name a file that can be read", "read the passphrase: %v", err)
		}
		return bytes.TrimRight(b, "\r\n"), nil
	}
	if p := c.getenv("DUNLIN_PASSPHRASE"); p != "" {
		return []byte(p), nil
	}
	f, ok := c.in.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return nil, passphraseError("set DUNLIN_PASSPHRASE, pass --passphrase-file, or run it at a terminal", "nobody is there to type the passphrase of %s", whose)
	}
	p, err := c.typed(f, "passphrase of "+whose)
	if err != nil || !confirm {
		return p, err
	}
	again, err := c.typed(f, "the same again")
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(p, again) {
		return nil, passphraseError("run it again", "the two passphrases differ")
	}
	return p, nil
}

// typed reads a line without echo.
func (c *cli) typed(f *os.File, prompt string) ([]byte, error) {
	fmt.Fprintf(c.err, "%s: ", prompt)
	defer fmt.Fprintln(c.err)
	return term.ReadPassword(int(f.Fd()))
}

func passphraseError(next, format string, args ...any) error {
	return &fleet.Error{Code: "key.passphrase", Message: fmt.Sprintf(format, args...), Next: next}
}
