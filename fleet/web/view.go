package web

import (
	"bytes"
	"encoding/json"
	"strings"
	"time"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/shared/bundle"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

// when is a time or absent.
func when(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// DeviceView is a device as the API shows it.
type DeviceView struct {
	ID         string            `json:"id"`
	Status     string            `json:"status" enum:"pending,active,revoked,retired"`
	Channel    string            `json:"channel"`
	Class      string            `json:"class" doc:"hardware class, its stratum in rollouts"`
	Labels     map[string]string `json:"labels"`
	Facts      map[string]string `json:"facts"`
	Agent      string            `json:"agent"`
	Online     bool              `json:"online"`
	LastSeen   *time.Time        `json:"last_seen,omitempty"`
	Enrolled   *time.Time        `json:"enrolled,omitempty"`
	Expires    *time.Time        `json:"expires,omitempty" doc:"of the certificate"`
	Key        string            `json:"fingerprint" doc:"SHA-256 of its public key, hex; of a pending device that of the key that waits"`
	Former     []FormerView      `json:"former,omitempty" doc:"identities that the name had before, the newest first"`
	Alarms     []AlarmView       `json:"alarms,omitempty" doc:"what is wrong with the device"`
	Renewal    *RenewalView      `json:"renewal,omitempty" doc:"of the certificate, while one is under way"`
	Generation int64             `json:"generation" doc:"of the newest wish that the device has verified"`
	Proof      string            `json:"proof,omitempty" enum:"proven,claimed,"`
	ReportedAt *time.Time        `json:"reported_at,omitempty"`
	Models     []ModelView       `json:"models"`
	Dropped    map[string]uint64 `json:"dropped,omitempty" doc:"records that the device's full queues had to drop, by kind"`
	Wish       *WishView         `json:"wish,omitempty"`
	Refusal    *EventView        `json:"refusal,omitempty" doc:"what the device refused last, unless it has believed since"`
	Server     *ServerView       `json:"server,omitempty" doc:"how the device knows this server, once that has changed"`
}

// ServerView is how a device knows its server.
type ServerView struct {
	Address string `json:"address" doc:"MQTT address that it uses"`
	Trouble string `json:"trouble,omitempty" doc:"why it is not the one that it shall use"`
	CAs     int    `json:"cas" doc:"CAs that it trusts; 0: the one that it was enrolled by"`
	Newest  bool   `json:"newest" doc:"it holds the newest that it was told"`
}

func viewServer(p *fleet.Signpost) *ServerView {
	if p.At.IsZero() {
		return nil
	}
	v := &ServerView{Address: p.Using, Trouble: p.Trouble, Newest: bytes.Equal(p.Held, p.Offered)}
	if held := p.Holds(); held != nil {
		v.CAs = len(held.CAs)
	}
	return v
}

// RenewalView is the next key of a device.
type RenewalView struct {
	Waits       bool      `json:"waits" doc:"for an operator to accept it"`
	Fingerprint string    `json:"fingerprint" doc:"SHA-256 of the next key, hex"`
	Asked       time.Time `json:"asked"`
}

// ModelView is one model on a device.
type ModelView struct {
	Model     string    `json:"model"`
	Active    *SlotView `json:"active,omitempty"`
	Candidate *SlotView `json:"candidate,omitempty"`
	Step      string    `json:"step,omitempty"`
	Rollout   string    `json:"rollout,omitempty"`
	Attempt   int64     `json:"attempt,omitempty"`
}

// SlotView is a pair with its verdict.
type SlotView struct {
	Path    string `json:"path"`
	Version string `json:"version"`
	Bundle  string `json:"bundle"`
	Runtime string `json:"runtime,omitempty"`
	Verdict string `json:"verdict"`
	Code    string `json:"code,omitempty"`
	Reason  string `json:"reason,omitempty"`
	Proven  bool   `json:"proven"`

	Proof *bundle.Proof `json:"proof,omitempty" doc:"what it showed on the device before it served"`
}

// WishView is what a device shall run.
type WishView struct {
	Generation int64        `json:"generation"`
	Items      []fleet.Item `json:"items"`
}

func viewDevice(d *fleet.Device) DeviceView {
	v := DeviceView{ID: d.ID, Status: d.Status, Channel: d.Channel, Class: d.Class(), Labels: orEmpty(d.Labels), Facts: orEmpty(d.Facts), Agent: d.Agent, Online: d.Online,
		LastSeen: when(d.LastSeen), Enrolled: when(d.Enrolled), Generation: d.Generation, Proof: d.Proof, ReportedAt: when(d.ReportedAt), Models: []ModelView{}}
	v.Expires, v.Key = when(d.Expires), fleet.Fingerprint(d.PublicKey)
	if r := d.Renewal; r != nil {
		v.Renewal = &RenewalView{Waits: r.Waits(), Fingerprint: fleet.Fingerprint(r.PublicKey), Asked: r.Asked}
	}
	for _, q := range d.Queues {
		if q.Dropped > 0 {
			if v.Dropped == nil {
				v.Dropped = map[string]uint64{}
			}
			v.Dropped[string(q.Kind)] = q.Dropped
		}
	}
	for _, m := range d.Models {
		v.Models = append(v.Models, ModelView{Model: m.Model, Active: viewSlot(m.Active), Candidate: viewSlot(m.Candidate), Step: m.Step, Rollout: m.Rollout, Attempt: m.Attempt})
	}
	return v
}

func orEmpty(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return m
}

func viewSlot(s *wire.SlotState) *SlotView {
	if s == nil {
		return nil
	}
	return &SlotView{Path: s.Path, Version: s.Path[strings.LastIndexByte(s.Path, '/')+1:], Bundle: s.Bundle, Runtime: s.Runtime, Verdict: s.Verdict, Code: s.Code, Reason: s.Reason, Proven: s.Proven, Proof: s.Proof}
}

// RolloutView is a rollout as the API shows it.
type RolloutView struct {
	ID       string      `json:"id"`
	Spec     fleet.Spec  `json:"spec"`
	Status   string      `json:"status" enum:"running,paused,halted,aborted,completed,reverting,reverted"`
	Code     string      `json:"code,omitempty"`
	Reason   string      `json:"reason,omitempty"`
	Waiting  string      `json:"waiting,omitempty" doc:"what it waits for"`
	Stage    int         `json:"stage"`
	Devices  int         `json:"devices"`
	Counts   CountsView  `json:"counts"`
	Stages   []StageView `json:"stages"`
	Created  time.Time   `json:"created"`
	By       string      `json:"by"`
	Finished *time.Time  `json:"finished,omitempty"`
	// Gates are in the answer about one rollout.
	Gates []fleet.GateReading `json:"gates,omitempty" doc:"the newest evaluation of each"`
}

// CountsView counts members by what became of them.
type CountsView struct {
	Waiting  int `json:"waiting" doc:"not assigned yet"`
	Assigned int `json:"assigned" doc:"assigned, not acknowledged"`
	Working  int `json:"working" doc:"acknowledged, no outcome yet"`
	Good     int `json:"good"`
	Failed   int `json:"failed"`
	Silent   int `json:"silent"`
	Hit      int `json:"hit" doc:"failed, after it had answered live requests"`
	Back     int `json:"back" doc:"without an outcome, got the former wish back and acknowledged it, or never the other"`
	Gone     int `json:"gone" doc:"without an outcome, revoked or retired: nothing is waited for"`
	Leaving  int `json:"leaving" doc:"without an outcome, has not acknowledged yet that it got the former wish back"`
}

// StageView is one stage; the last one is control.
type StageView struct {
	Index   int        `json:"index"`
	Control bool       `json:"control"`
	Target  int        `json:"target" doc:"devices, cumulative"`
	Good    int        `json:"good" doc:"devices, cumulative"`
	Started *time.Time `json:"started,omitempty"`
	Baking  *time.Time `json:"baking,omitempty"`
	Passed  *time.Time `json:"passed,omitempty"`
	Held    *time.Time `json:"held,omitempty" doc:"when gates asked for a person"`
}

func (a *api) viewRollout(r *fleet.Rollout, ts []fleet.Tally) RolloutView {
	v := RolloutView{ID: r.ID, Spec: r.Spec, Status: r.Status, Code: r.Code, Reason: r.Reason, Waiting: a.Waiting(r, ts, time.Now()), Stage: r.Stage, Devices: r.Devices, Created: r.Created, By: r.By, Finished: when(r.Finished), Stages: []StageView{}}
	for i, st := range r.Stages {
		s := StageView{Index: st.Index, Control: i == len(r.Stages)-1, Target: st.Target, Started: when(st.Started), Baking: when(st.Baking), Passed: when(st.Passed), Held: when(st.Held)}
		for _, t := range ts {
			if t.Stage <= i && t.Outcome == fleet.OutcomeGood {
				s.Good += t.Devices
			}
		}
		v.Stages = append(v.Stages, s)
	}
	for _, t := range ts {
		v.Counts.add(t)
	}
	return v
}

func (c *CountsView) add(t fleet.Tally) {
	switch {
	case t.Outcome == fleet.OutcomeGood:
		c.Good += t.Devices
	case t.Outcome == fleet.OutcomeFailed:
		c.Failed += t.Devices
		if t.Answered {
			c.Hit += t.Devices
		}
	case t.Outcome == fleet.OutcomeSilent:
		c.Silent += t.Devices
	case t.Revoked:
		c.Gone += t.Devices
	case !t.Assigned:
		c.Waiting += t.Devices
	case t.Undone && t.Back:
		c.Back += t.Devices
	case t.Undone:
		c.Leaving += t.Devices
	case !t.Acked:
		c.Assigned += t.Devices
	default:
		c.Working += t.Devices
	}
}

// MemberView is one device of a rollout.
type MemberView struct {
	Device   string     `json:"device"`
	Class    string     `json:"class"`
	Stage    int        `json:"stage"`
	Control  bool       `json:"control"`
	Assigned *time.Time `json:"assigned,omitempty"`
	Acked    *time.Time `json:"acked,omitempty"`
	Outcome  string     `json:"outcome,omitempty" enum:"good,failed,silent,"`
	Code     string     `json:"code,omitempty"`
	Reason   string     `json:"reason,omitempty"`
	Answered uint64     `json:"answered" doc:"live requests that the release answered before it was refused"`
	Settled  *time.Time `json:"settled,omitempty"`
	Undone   *time.Time `json:"undone,omitempty" doc:"when it was given back what it had before"`
	Back     bool       `json:"back,omitempty" doc:"it has acknowledged that"`
}

func viewMember(m fleet.Member) MemberView {
	return MemberView{Device: m.Device, Class: m.Stratum, Stage: m.Stage, Control: m.Control, Assigned: when(m.Assigned), Acked: when(m.Acked), Outcome: m.Outcome, Code: m.Code, Reason: m.Reason, Answered: m.Answered, Settled: when(m.Settled), Undone: when(m.Undone), Back: m.Back}
}

// GateView is one look at a gate.
type GateView struct {
	fleet.GateReading
	Evidence json.RawMessage `json:"evidence"`
}

// ReleaseView is a published release.
type ReleaseView struct {
	Path      string    `json:"path"`
	Channel   string    `json:"channel"`
	Model     string    `json:"model"`
	Version   string    `json:"version"`
	Kind      string    `json:"kind"`
	Counter   int64     `json:"counter"`
	Digest    string    `json:"digest"`
	Size      int64     `json:"size" doc:"bytes of all blobs"`
	Published time.Time `json:"published"`
}

func viewRelease(r *fleet.Release) ReleaseView {
	return ReleaseView{Path: r.Path(), Channel: r.Channel, Model: r.Model, Version: r.Version, Kind: r.Kind, Counter: r.Counter, Digest: r.Digest, Size: r.Size, Published: r.Published}
}
