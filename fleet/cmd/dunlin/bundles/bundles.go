// Package bundles holds the commands of dunlin that work on bundles and model
// files alone, without a server: pack, inspect, diff, verify, unpack.
package bundles

import (
	"io"

	"github.com/spf13/cobra"

	"github.com/dunlin-edge/dunlin/fleet/pack"
)

// Commands is what these commands take from the program.
type Commands struct {
	Err    io.Writer
	Getenv func(string) string
	// Print writes v as JSON, or calls table for people.
	Print func(v any, table func(io.Writer)) error
	// Asker puts questions to the person at the terminal; nil if nobody is there.
	Asker func() pack.Asker
	// Passphrase is where the passphrase of somebody's key comes from: a file, or
	// elsewhere if that is "".
	Passphrase func(file, whose string) func(confirm bool) ([]byte, error)
}

// List returns the commands.
func (c *Commands) List() []*cobra.Command {
	return []*cobra.Command{c.packCmd(), c.inspectCmd(), c.diffCmd(), c.verifyCmd(), c.unpackCmd()}
}
