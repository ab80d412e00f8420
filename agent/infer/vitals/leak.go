package vitals

const (
	settle   = 4        // looks before a worker's memory is what it needs
	slackKB  = 64 << 10 // that it may grow beyond, at least
	sure     = 2        // looks in a row over the bound that are no accident
	partKill = 4        // a quarter below the limit that kills is too near to it
)

// Leak watches a worker's private memory: what it needs after a few looks is its
// base; twice that and 64 MiB more, or three quarters of the limit that kills, is
// a leak. A base that is beyond the limit's three quarters is left to the limit.
type Leak struct {
	killKB int64 // 0: none
	base   int64
	looks  int
	over   int
}

// NewLeak watches a worker that so much memory kills; 0: no limit.
func NewLeak(limitMB int) *Leak { return &Leak{killKB: int64(limitMB) << 10} }

// Grew takes one look in, 0 for one that could not be had, and tells whether the
// worker is to be replaced.
func (l *Leak) Grew(kb int64) bool {
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

// Base is what the worker needs, in KiB, as far as it is known.
func (l *Leak) Base() int64 { return l.base }

func (l *Leak) bound() int64 {
	b := 2*l.base + slackKB
	if near := l.killKB - l.killKB/partKill; l.killKB > 0 && l.base < near {
		b = min(b, near)
	}
	return b
}
