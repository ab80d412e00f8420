package infer

import (
	"bytes"
	"os"
	"strconv"
)

const (
	settle   = 4        // looks before a worker's memory is what it needs
	slackKB  = 64 << 10 // that it may grow beyond, at least
	sure     = 2        // looks in a row over the bound that are no accident
	partKill = 4        // a quarter below the limit that kills is too near to it
)

// leak watches a worker's private memory: what it needs after a few looks is its
// base; twice that and 64 MiB more, or three quarters of the limit that kills, is
// a leak. A base that is beyond the limit's three quarters is left to the limit.
type leak struct {
	killKB int64 // 0: none
	base   int64
	looks  int
	over   int
}

func newLeak(limitMB int) *leak { return &leak{killKB: int64(limitMB) << 10} }

// grew takes one look in, 0 for one that could not be had, and tells whether the
// worker is to be replaced.
func (l *leak) grew(kb int64) bool {
	if kb <= 0 {
		return false
	}
	if l.looks < settle {
		l.looks++
		l.base = max(l.base, kb)
		return false
	}
	if kb <= l.bound() {
		l.over = 0
		return false
	}
	l.over++
	return l.over >= sure
}

func (l *leak) bound() int64 {
	b := 2*l.base + slackKB
	if near := l.killKB - l.killKB/partKill; l.killKB > 0 && l.base < near {
		b = min(b, near)
	}
	return b
}

// privateKB is a process's memory that belongs to nobody else, 0 when it cannot be
// told. See proc(5), RssAnon.
func privateKB(pid int) int64 { return statusKB(pid, "RssAnon:") }

// peakKB is the highest resident memory of a process, 0 when it cannot be told.
func peakKB(pid int) int64 { return statusKB(pid, "VmHWM:") }

func statusKB(pid int, field string) int64 {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return 0
	}
	for line := range bytes.Lines(b) {
		if v, ok := bytes.CutPrefix(line, []byte(field)); ok {
			if f := bytes.Fields(v); len(f) > 0 {
				n, _ := strconv.ParseInt(string(f[0]), 10, 64) // 0 says that it cannot be told
				return n
			}
		}
	}
	return 0
}
