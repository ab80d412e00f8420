// Package fleet is the domain of the server: devices, releases, wishes,
// rollouts, what devices told, tokens, audit, and the codes of everything that
// can go wrong. One noun, one file. It knows no database, no network and no
// clock; times are parameters.
package fleet

import (
	"crypto/rand"
	"time"

	"github.com/oklog/ulid/v2"
)

// Version of the server and of its command line, set when they are built.
var Version = "0.0.0-dev"

// Prefixes of ids; an id is its prefix and a ULID.
const (
	PrefixRollout = "rol_"
	PrefixRelease = "rel_"
	PrefixToken   = "tok_"
	PrefixAudit   = "aud_"
	PrefixEvent   = "evt_"
	PrefixAccess  = "acc_"
	PrefixLockbox = "lbx_"
)

// entropy gives ids of one millisecond the order in which they were made.
var entropy = &ulid.LockedMonotonicReader{MonotonicReader: ulid.Monotonic(rand.Reader, 0)}

// NewID returns a fresh id; later ids of this process sort after earlier ones, as
// far as now does not go back.
func NewID(prefix string, now time.Time) string {
	return prefix + ulid.MustNew(ulid.Timestamp(now), entropy).String()
}
