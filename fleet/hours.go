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

// DayHours are the same hours on every day, bit 0 being midnight in UTC; nil, that is
// always, for none and for all.
func DayHours(mask uint32) *Hours {
	if mask &= 1<<24 - 1; mask == 0 || mask == 1<<24-1 {
		return nil
	}
	var h Hours
	for i := range h {
		h[i] = mask>>(i%24)&1 == 1
	}
	return &h
}

// Mask is what DayHours makes h of, by its Monday.
func (h *Hours) Mask() (mask uint32) {
	if h == nil {
		return 0
	}
	for i := range 24 {
		if h[i] {
			mask |= 1 << i
		}
	}
	return mask
}

// DaysOn is in how many days a device was on in each hour of the day, in UTC, and how
// many days are known of it.
type DaysOn struct {
	Of    int
	Hours [24]int
}

// Learnt is the hours in which such a device is expected: those in which it was on in
// at least four days of seven. Fewer than four days teach nothing.
func (d DaysOn) Learnt() *Hours {
	if d.Of < 4 {
		return nil
	}
	var mask uint32
	for h, n := range d.Hours {
		if 7*n >= 4*min(d.Of, 7) {
			mask |= 1 << h
		}
	}
	return DayHours(mask)
}
