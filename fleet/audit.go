package fleet

import "time"

// Audit is one act of a person, a token or the server itself, written in the
// act's own transaction.
type Audit struct {
	ID     string // aud_…
	At     time.Time
	Actor  string // access id, "device:…" or "server"
	Act    string // "rollout.create"
	Object string // id
	Detail string // JSON or a sentence
}
