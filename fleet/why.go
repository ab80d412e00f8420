package fleet

// Rule is one thing that must hold before a device changes, in the order in which they
// are looked at.
type Rule struct {
	Rule  string `json:"rule"`
	Holds bool   `json:"holds"`
	Says  string `json:"says" doc:"what is so"`
	Who   string `json:"who,omitempty" doc:"who can change that, where the rule does not hold"`
}

// Why says what keeps a device from running something else than it does.
type Why struct {
	Device  string `json:"device"`
	Model   string `json:"model"`
	Runs    string `json:"runs,omitempty" doc:"release that it serves, as it said last"`
	Wished  string `json:"wished,omitempty" doc:"release that it shall run"`
	Rollout string `json:"rollout,omitempty" doc:"that looked at it last"`
	Rules   []Rule `json:"rules"`
	Blocker *Rule  `json:"blocker,omitempty" doc:"the first that does not hold; absent: nothing stands in the way"`
}
