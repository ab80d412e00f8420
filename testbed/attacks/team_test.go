package attacks

import (
	"crypto/ed25519"
	"testing"

	"github.com/dunlin-edge/dunlin/fleet/catalog/catalogtest"
	"github.com/dunlin-edge/dunlin/shared/trust"
)

const team = "catalog/production.vision"

// vision is a team of which two of three sign digits in production.
func vision() catalogtest.Team {
	return catalogtest.Team{Channel: channel, Name: "vision", Models: []string{"digits"}, Threshold: 2,
		Keys: []ed25519.PrivateKey{catalogtest.NewKey(), catalogtest.NewKey(), catalogtest.NewKey()}}
}

// teamed makes an attack on a fleet in which a team signs digits.
func teamed(code string, forge func(*forgery)) func(*testing.T, *world) {
	return func(t *testing.T, _ *world) { newWorld(t, vision()).forged(t, attack{code: code, forge: forge}) }
}

// stays makes one that a device believes in part, and looks at what it installs.
func stays(forge func(*forgery), look func(t *testing.T, got trust.Wish)) func(*testing.T, *world) {
	return func(t *testing.T, _ *world) {
		w := newWorld(t, vision())
		d := w.device(t)
		d.believes(honest(w.later))
		f := w.forge(t, w.last)
		forge(f)
		look(t, d.believes(sends(f.Send())))
	}
}

// wishes has the director want a release that a role names now.
func (f *forgery) wishes(role, path, like string) {
	x := f.target(role, like)
	f.Files[role].Signed["targets"].(doc)[path] = x
	f.Files["director/targets"].Signed["targets"].(doc)[path] = x
}

// teamRows have keys of one side where a team has models of its own.
func teamRows() []group {
	channels := func(f *forgery) []ed25519.PrivateKey { return f.w.pub.Quorum(f.w.pub.Release) }
	above := func(t *testing.T, got trust.Wish) {
		for _, x := range got.Targets {
			if x.BelowFloor {
				t.Errorf("%s is below a floor that its own role never stated", x.Path)
			}
		}
	}
	return []group{{"Release keys of others than a model's team", "a quorum of the channel's release keys, all online keys and the network", []attack{
		{name: "sign a release of the team's model in the channel's role", code: trust.CodeDisagree, run: teamed(trust.CodeDisagree, func(f *forgery) {
			f.Files["catalog/production"].Signed["targets"].(doc)[second] = f.target(team, second)
			delete(f.Files[team].Signed["targets"].(doc), second)
			f.Files[team].Keys = f.w.pub.Teams[0].Keys[:2] // even were the team's own to forget it
		})},
		{name: "sign the team's role", code: trust.CodeSignature, run: teamed(trust.CodeSignature, func(f *forgery) { f.Files[team].Keys = channels(f) })},
		{name: "sign the team's role with one of the team", code: trust.CodeSignature, run: teamed(trust.CodeSignature, func(f *forgery) {
			f.Files[team].Keys = append(channels(f), f.w.pub.Teams[0].Keys[0])
		})},
		{name: "raise the floor of the team's model out of reach", holds: "a floor counts in the role that signs the model, and nowhere else", run: stays(func(f *forgery) {
			f.custom("catalog/production")["floors"] = doc{"digits": 99}
		}, above)},
		{name: "end the team, if they are enough to sign the catalog's targets", holds: "**this succeeds**: who delegates decides who signs a model; it is a change of the targets that the audit and \"dunlin model status\" show"},
		{name: "hold the team's role back", code: trust.CodeMixAndMatch, run: teamed(trust.CodeMixAndMatch, gone(team))},
		{name: "send the team's role of before its floor", code: trust.CodeMixAndMatch, run: teamed(trust.CodeMixAndMatch, func(f *forgery) { f.swap(team, f.w.early) })},
		{name: "leave the team's role out of the snapshot", code: trust.CodeMixAndMatch, run: teamed(trust.CodeMixAndMatch, func(f *forgery) {
			delete(f.Files, team)
			delete(f.Files["catalog/snapshot"].Signed["meta"].(doc), "production.vision.json")
		})},
	}}, {"A team's keys", "a quorum of the team's keys, all online keys and the network", []attack{
		{name: "sign a release of another's model", code: trust.CodeDisagree, run: teamed(trust.CodeDisagree, func(f *forgery) {
			f.wishes(team, "production/runtime-litert-arm64/6.6.6", second)
		})},
		{name: "sign for another channel", code: trust.CodeWrongChannel, run: teamed(trust.CodeWrongChannel, func(f *forgery) { f.wishes(team, "dev/digits/6.6.6", second) })},
		{name: "raise the floor of another's model", holds: "a floor counts in the role that signs the model, and nowhere else", run: stays(func(f *forgery) {
			f.custom(team)["floors"] = doc{"digits": 2, "runtime-litert-arm64": 99}
		}, above)},
		{name: "say that their role is that of another channel", code: trust.CodeWrongChannel, run: teamed(trust.CodeWrongChannel, func(f *forgery) { f.custom(team)["channel"] = "dev" })},
	}}}
}
