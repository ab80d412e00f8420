package fleet

import (
	"encoding/json"
	"fmt"
	"time"
)

// Duration is a time.Duration written like "90s" or "1h30m".
type Duration time.Duration

// MarshalJSON writes the duration as text.
func (d Duration) MarshalJSON() ([]byte, error) { return json.Marshal(time.Duration(d).String()) }

// UnmarshalJSON reads text such as "90s"; negative durations are refused.
func (d *Duration) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return fmt.Errorf("duration: text such as \"90s\" wanted: %w", err)
	}
	v, err := time.ParseDuration(s)
	if err != nil || v < 0 {
		return fmt.Errorf("duration %q: text such as \"90s\" wanted", s)
	}
	*d = Duration(v)
	return nil
}
