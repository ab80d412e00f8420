package fleet

import "time"

// Hours are the hours of a week in which a device is expected to be on, in UTC from
// Monday 00:00 on.
type Hours [7 * 24]bool

// hourOf is the index of the hour that t lies in.
func hourOf(t time.Time) int {
	t = t.UTC()
	return (int(t.Weekday())+6)%7*24 + t.Hour()
}

// Expected tells whether the device is expected to be on at t; nil expects it always.
func (h *Hours) Expected(t time.Time) bool { return h == nil || h[hourOf(t)] }

// Between is how much of the time from..to lies in the hours.
func (h *Hours) Between(from, to time.Time) time.Duration {
	if h == nil {
		return max(to.Sub(from), 0)
	}
	var sum time.Duration
	for from.Before(to) {
		next := from.Truncate(time.Hour).Add(time.Hour)
		if next.After(to) {
			next = to
		}
		if h.Expected(from) {
			sum += next.Sub(from)
		}
		from = next
	}
	return sum
}

// After is the first time by which so much of the hours has passed since from; zero
// where the hours are empty.
func (h *Hours) After(from time.Time, d time.Duration) time.Time {
	if h == nil {
		return from.Add(d)
	}
	if *h == (Hours{}) {
		return time.Time{}
	}
	for d > 0 {
		next := from.Truncate(time.Hour).Add(time.Hour)
		if step := next.Sub(from); !h.Expected(from) {
			from = next
		} else if step >= d {
			return from.Add(d)
		} else {
			d -= step
			from = next
		}
	}
	return from
}
