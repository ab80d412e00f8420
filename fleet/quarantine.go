package fleet

import "time"

// PrefixQuarantine begins the id of a quarantine.
const PrefixQuarantine = "qua_"

// Quarantine keeps a release from devices after a gate has failed on it, until a
// person lets it go with a reason.
type Quarantine struct {
	ID       string    `json:"id"`
	Path     string    `json:"path" doc:"of the release"`
	Class    string    `json:"class,omitempty" doc:"hardware class; none: every one"`
	Rollout  string    `json:"rollout" doc:"whose gate failed"`
	Code     string    `json:"code"`
	Reason   string    `json:"reason"`
	Since    time.Time `json:"since"`
	Released time.Time `json:"released,omitzero" doc:"absent: it holds"`
	By       string    `json:"by,omitempty" doc:"who let it go"`
	Why      string    `json:"why,omitempty"`
}

// Holds tells whether it keeps the release from a hardware class.
func (q *Quarantine) Holds(class string) bool {
	return q.Released.IsZero() && (q.Class == "" || q.Class == class)
}
