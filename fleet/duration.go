package fleet

import (
	"fmt"
	"time"
)

// Duration is a time.Duration written as text like "90s" or "1h30m", in JSON,
// YAML and the API's description alike.
type Duration time.Duration

// String implements fmt.Stringer.
func (d Duration) String() string { return time.Duration(d).String() }

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads text such as "90s"; negative durations are refused.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err != nil || v < 0 {
		return fmt.Errorf("duration %q: text such as \"90s\" wanted", b)
	}
	*d = Duration(v)
	return nil
}
