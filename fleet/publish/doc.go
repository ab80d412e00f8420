// Package publish is the publisher's side of trust: it holds the ceremonies of the
// offline keys, signs releases under a channel and uploads them. It runs in the
// CLI only; no key that it uses ever reaches the server.
package publish
