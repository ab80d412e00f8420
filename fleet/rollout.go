package fleet

import (
	"time"

	"github.com/dunlin-edge/dunlin/shared/bundle"
)

// Statuses of a rollout.
const (
	RolloutRunning   = "running"
	RolloutPaused    = "paused"
	RolloutHalted    = "halted" // stopped itself; never goes on by itself
	RolloutAborted   = "aborted"
	RolloutCompleted = "completed"
	RolloutReverting = "reverting" // every changed device gets back what it had before
	RolloutReverted  = "reverted"  // every device has said that it did
)

// What a rollout does when a gate fails.
const (
	OnFailPause  = "pause"  // it halts: devices that are good keep the release
	OnFailAbort  = "abort"  // it ends: devices that are good keep the release
	OnFailRevert = "revert" // every device gets back what it had before
)

// Spec is what a person wants a rollout to do.
type Spec struct {
	Model    string      `json:"model"`
	Version  string      `json:"version"`
	Channel  string      `json:"channel"`
	Selector string      `json:"selector"` // over labels and facts; empty: every device of the channel
	Stages   []StageSpec `json:"stages,omitempty"`
	Control  *int        `json:"control_percent,omitempty"`                    // held back until the last gate, default 10
	Bake     Duration    `json:"bake,omitempty"`                               // of stages that set none
	Longest  Duration    `json:"longest_wait,omitempty"`                       // of a stage for gates that are not decided, expected-on; default 8 h
	Silence  Duration    `json:"silence,omitempty"`                            // not heard of for so long with an acknowledged assignment, default 15 min
	OnFail   string      `json:"on_fail,omitempty" enum:"pause,abort,revert,"` // default pause
	Gates    *GatesSpec  `json:"gates,omitempty"`
	Attempt  int64       `json:"attempt,omitempty"` // raise it to try a bad pair again
}

// GatesSpec says how a rollout looks at what the release does.
type GatesSpec struct {
	Look    Duration         `json:"look,omitempty"`    // the first look at a changed device; more follow at 2, 4, 8, 16 and 32 times that. Default 20 min
	Past    Duration         `json:"past,omitempty"`    // what a device is compared with of its own; twice that must have been seen. Default 24 h
	Use     []string         `json:"use,omitzero"`      // gates by name, none for an empty list; default errors, latency_p95, classes, score, memory, and truth where applications tell it
	Expect  map[string]Bound `json:"expect,omitempty"`  // bounds in place of a gate's own, for a change that is meant
	Metrics map[string]Bound `json:"metrics,omitempty"` // gates on applications' own measures
}

// Bound is what a gate tolerates and what it must find, on the gate's scale.
type Bound struct {
	Margin   float64 `json:"margin"`
	Harm     float64 `json:"harm"`
	TwoSided bool    `json:"two_sided,omitempty"` // of metrics: either direction is harm
}

// Defaults of GatesSpec.
const (
	DefaultLook = Duration(20 * time.Minute)
	DefaultPast = Duration(24 * time.Hour)
)

// Ungated tells whether no behaviour gate is asked.
func (s *Spec) Ungated() bool {
	return s.Gates != nil && s.Gates.Use != nil && len(s.Gates.Use) == 0 && len(s.Gates.Metrics) == 0
}

// Look is the length of the first look at a changed device.
func (s *Spec) Look() time.Duration {
	if s.Gates != nil && s.Gates.Look > 0 {
		return time.Duration(s.Gates.Look)
	}
	return time.Duration(DefaultLook)
}

// Path is the release's name in the catalog.
func (s *Spec) Path() string { return bundle.TargetPath(s.Channel, s.Model, s.Version) }

// StageSpec is one step: Count devices or Percent of each stratum, cumulative.
type StageSpec struct {
	Count   int      `json:"count,omitempty"`
	Percent int      `json:"percent,omitempty"`
	Bake    Duration `json:"bake,omitempty"`
}

// Rollout is a planned change of many devices. It is rows, not a process.
type Rollout struct {
	ID       string // rol_…
	Spec     Spec
	Status   string
	Reason   string // why halted or aborted: a sentence
	Code     string // "gate.prove", "gate.install", "gate.probation", "gate.crash", "gate.silence"
	Stage    int    // index of the stage under way
	Devices  int    // in all strata, control included
	Created  time.Time
	By       string
	Changed  time.Time
	Finished time.Time // zero: not yet
	Stages   []Stage
}

// Stage is a stage's progress.
type Stage struct {
	Index   int
	Started time.Time // zero: not yet
	Baking  time.Time // when the last of its devices was good; zero: not yet
	Passed  time.Time // zero: not yet
	Held    time.Time // when gates asked for a person; running again: the person lets it go on
	Target  int       // devices, cumulative
}

// Member is one device of a rollout.
type Member struct {
	Rollout  string
	Device   string
	Stratum  string // hardware class
	Order    int    // within the stratum, by SHA-256(rollout id, device id)
	Control  bool
	Stage    int       // that admits it
	Assigned time.Time // zero: not yet
	Acked    time.Time // hello or report with the wish's generation; zero: not yet
	Outcome  string    // "", OutcomeGood, OutcomeFailed, OutcomeSilent
	Code     string
	Reason   string
	Answered uint64 // live requests that the release answered on it
	Settled  time.Time
	Before   *Item     // what the device was to run before; nil: nothing
	Undone   time.Time // when the wish was taken back after a halt or an abort; zero: not

	// Of the device, when the member is read; a store does not keep them here.
	Heard   time.Time // when the device was last heard of; zero: never
	Back    bool      // undone, and the device has acknowledged its wish since
	Hours   *Hours    // in which it is expected to be on; nil: always
	Revoked bool

	Late bool // set by a plan: it does not wait for the device to acknowledge
}

// Tally is how many devices of one stage of a rollout have come equally far; the
// words are those of Member.
type Tally struct {
	Stage    int
	Outcome  string
	Assigned bool
	Acked    bool
	Undone   bool
	Back     bool // undone, and the device has acknowledged that or never the other wish
	Answered bool // the release answered live requests
	Revoked  bool
	Devices  int
}

// Outcomes of a member.
const (
	OutcomeGood   = "good"
	OutcomeFailed = "failed"
	OutcomeSilent = "silent"
)

// Gate evaluation verdicts.
const (
	GatePass   = "pass"
	GateFail   = "fail"
	GateNotYet = "not_yet"
)

// GateEvaluation is one look at one gate with the evidence it was judged on;
// judging the stored evidence again gives the stored verdict.
type GateEvaluation struct {
	Rollout  string
	Stage    int
	Gate     string // "install", "prove", "probation", "crash", "silence"
	At       time.Time
	Verdict  string
	Evidence string // JSON
}
