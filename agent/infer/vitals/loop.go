package vitals

import "time"

const (
	loopDeaths = 5 // within loopTime are a loop
	loopTime   = 10 * time.Minute
)

// Loop tells a model that crashes again and again from one that crashed.
type Loop struct {
	deaths [loopDeaths]time.Time // the last ones, in a ring
	n      int
	told   bool
}

// Death takes one in and tells, once, that they are a loop.
func (l *Loop) Death(now time.Time) bool {
	l.deaths[l.n%loopDeaths] = now
	l.n++
	oldest := l.deaths[l.n%loopDeaths]
	if l.told || l.n < loopDeaths || now.Sub(oldest) > loopTime {
		return false
	}
	l.told = true
	return true
}
