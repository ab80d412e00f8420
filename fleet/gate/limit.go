package gate

// Limit compares with a bound that the policy or the contract states. It is no
// statistic: a device is over it or not.
type Limit struct {
	Bound   float64 `json:"bound"`
	Worst   float64 `json:"worst"`            // of the devices
	Device  string  `json:"device,omitempty"` // that has the worst value
	Over    int     `json:"over"`             // devices over the bound
	Devices int     `json:"devices"`          // that were looked at
	Least   int     `json:"least"`            // devices over the bound that fail; one device may be at fault itself
}

func (l *Limit) judge() Result {
	r := Result{Verdict: NotYet, Change: l.Worst, Units: l.Devices, Decidable: l.Devices > 0}
	switch {
	case l.Over > 0 && l.Over >= min(l.Least, l.Devices):
		r.Verdict, r.Harm = Fail, 1e9
	case l.Over > 0:
		r.Harm = Suspicion
	case l.Devices > 0:
		r.Verdict = Pass
	}
	return r
}
