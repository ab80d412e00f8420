package broker

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// natsLog gives nats-server's lines to slog. A device can cause a line for each
// of its bad packets, so lines are bounded per second; Fatalf does not exit.
type natsLog struct {
	l *slog.Logger

	mu     sync.Mutex
	second int64
	lines  int
}

const linesPerSecond = 20

func (n *natsLog) log(level slog.Level, format string, v []any) {
	if !n.l.Enabled(context.Background(), level) {
		return
	}
	n.mu.Lock()
	if now := time.Now().Unix(); now != n.second {
		n.second, n.lines = now, 0
	}
	n.lines++
	over := n.lines > linesPerSecond
	n.mu.Unlock()
	if !over {
		n.l.Log(context.Background(), level, "broker: "+fmt.Sprintf(format, v...))
	}
}

func (n *natsLog) Noticef(f string, v ...any) { n.log(slog.LevelDebug, f, v) }
func (n *natsLog) Warnf(f string, v ...any)   { n.log(slog.LevelWarn, f, v) }
func (n *natsLog) Errorf(f string, v ...any)  { n.log(slog.LevelWarn, f, v) }
func (n *natsLog) Fatalf(f string, v ...any)  { n.log(slog.LevelError, f, v) }
func (n *natsLog) Debugf(f string, v ...any)  { n.log(slog.LevelDebug, f, v) }
func (n *natsLog) Tracef(f string, v ...any)  { n.log(slog.LevelDebug, f, v) }
