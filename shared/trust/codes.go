package trust

import (
	"fmt"
	"slices"
)

// Refusal is metadata or a blob that was not believed. Nothing was changed.
type Refusal struct {
	Code string // names the attack, see the Code constants
	Err  error
}

// Codes of refusals, after the attacks of the TUF specification, section 1.5.2.
const (
	CodeSignature    = "trust.signature"
	CodeUnknownKey   = "trust.unknown_key_type"
	CodeRollback     = "trust.rollback"
	CodeRootGap      = "trust.root_gap"
	CodeFreeze       = "trust.freeze"
	CodeMixAndMatch  = "trust.mix_and_match"
	CodeMalformed    = "trust.malformed"
	CodeSpecVersion  = "trust.spec_version"
	CodeTooLarge     = "trust.too_large"
	CodeWrongDevice  = "trust.wrong_device"
	CodeWrongChannel = "trust.wrong_channel"
	CodeDisagree     = "trust.disagree"
	CodeBlob         = "trust.blob"
)

// Meaning of a code: what was tried, and what an operator does next.
type Meaning struct {
	Code, Attack, Next string
}

// codes has every code. Each refusal is of harm or of a mistake,
// and a device cannot tell which: the next step finds out.
var codes = []Meaning{
	{CodeSignature, "metadata that the threshold of its keys did not sign", "ask who changed it: 'dunlin keys status' shows who signs what; a key that is stolen is taken away with 'dunlin keys revoke'"},
	{CodeUnknownKey, "a role with a key of a type that this agent does not know", "update the agent before keys of this type are used, or sign the role with keys that it knows"},
	{CodeRollback, "metadata older than what this device has seen", "if the server was restored, restore it with 'dunlin-fleet restore', which raises its versions; else somebody replays old files"},
	{CodeRootGap, "a root whose predecessor is missing", "serve every root since the first; 'dunlin keys check' tells whether they are all there"},
	{CodeFreeze, "metadata that has expired: newer is withheld, or nobody signed it anew", "look at 'dunlin keys status' for what is due; if all is fresh there, somebody between server and device holds it back"},
	{CodeMixAndMatch, "files that do not belong together", "refresh again; if it stays, look at the server's storage and at who can write to it"},
	{CodeMalformed, "bytes that are no metadata, or metadata that may not be so", "look at who made it: Dunlin's own tools do not"},
	{CodeSpecVersion, "metadata of a version of TUF that this agent does not know", "update the agent first"},
	{CodeTooLarge, "endless data: more bytes, files or roots than a device reads", "look at who sends it: the server does not"},
	{CodeWrongDevice, "the director's files of another device", "look for two devices with one name or a server that mixes them up; else somebody replays another's files"},
	{CodeWrongChannel, "a target or a role of another channel", "assign a release of the device's channel, or enrol the device into the other one"},
	{CodeDisagree, "director and catalog do not say the same of a target", "treat the server as stolen until it is explained: see docs/security-model.md, stolen server"},
	{CodeBlob, "a file that is cut or altered on its way", "nothing, if it stops: it is fetched again; else look at the path, or throw the stick away"},
}

// Codes are all codes that a Refusal has, with their meanings.
func Codes() []Meaning { return slices.Clone(codes) }

// Next is what to do about a refusal with a code, empty for a code of others.
func Next(code string) string {
	for _, m := range codes {
		if m.Code == code {
			return m.Next
		}
	}
	return ""
}

// Error implements error.
func (r *Refusal) Error() string { return r.Err.Error() + " (" + r.Code + ")" }

// Unwrap returns what was wrong.
func (r *Refusal) Unwrap() error { return r.Err }

func refuse(code, format string, args ...any) error {
	return &Refusal{code, fmt.Errorf(format, args...)}
}
