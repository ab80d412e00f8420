// Package bond keeps device and server known to each other: the certificate is
// renewed in time, and the server is followed when its CA or its address changes.
package bond

import (
	"log/slog"
	"time"
)

// Surroundings are what is looked at and had done.
type Surroundings struct {
	Now       func() time.Time // trusted
	Trusted   func() bool      // the clock
	Connected func() bool
	Drained   func() bool // the server has every report
	Reconnect func()
	Hello     func()
	Happened  func(typ, code, detail string)
	Log       *slog.Logger
}
