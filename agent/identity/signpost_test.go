package identity

import (
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dunlin-edge/dunlin/shared/durable"
	"github.com/dunlin-edge/dunlin/shared/durable/crashfs"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

var (
	enrolledAt = wire.Address{Server: "", MQTT: "127.0.0.1:8883"} // Server: of the rig
	movedTo    = wire.Address{Server: "https://new.example:8443", MQTT: "new.example:8883"}
	nowhere    = wire.Address{Server: "https://nowhere.invalid:8443", MQTT: "nowhere.invalid:8883"}
	later      = time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)
)

// town is a server that changes its CA and its address, and the device that it
// enrolled.
type town struct {
	*serverSim
	t     *testing.T
	first *authority
	next  *authority
	other *authority
	built *crashfs.FS
	home  wire.Address
	leafs map[*authority]*x509.Certificate // of the server, by its CA
	said  []stage
}

func newTown(t *testing.T) *town {
	t.Helper()
	w := &town{serverSim: newServer(t), t: t, next: newAuthority(t), other: newAuthority(t), built: crashfs.New(), leafs: map[*authority]*x509.Certificate{}}
	w.first = w.ca
	reply, err := Enrol(t.Context(), w.built, crashDir, w.token, crashName, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := Store(w.built, crashDir, w.token, reply); err != nil {
		t.Fatal(err)
	}
	w.built.Settle()
	w.home = wire.Address{Server: w.token.Server, MQTT: enrolledAt.MQTT}
	return w
}

func (w *town) load(f durable.FS) *Identity {
	w.t.Helper()
	id, err := Load(f, crashDir)
	if err != nil {
		w.t.Fatal(err)
	}
	return id
}

// post is a signpost that a CA has signed.
func (w *town) post(by *authority, number int64, cas []*authority, at ...wire.Address) *wire.Envelope {
	w.t.Helper()
	s := &wire.Signpost{Device: crashName, Number: number, Addresses: at}
	for _, c := range cas {
		s.CAs = append(s.CAs, c.cert.Raw)
	}
	env, err := wire.SignSignpost(by.key, s)
	if err != nil {
		w.t.Fatal(err)
	}
	return env
}

// session begins one where the device looks next, with a server of that CA; when it
// is welcomed there, it returns the address that worked before.
func (w *town) session(id *Identity, of *authority, answers ...string) (at, from string, welcomed bool) {
	w.t.Helper()
	at, _ = id.Next(errors.New("no such host"), untrusted)
	for _, a := range answers {
		if a != at {
			continue
		}
		if w.leafs[of] == nil {
			w.leafs[of] = parse(w.t, of.server(w.t, "server", around(later)).Certificate[0])
		}
		id.mu.Lock()
		id.server = []*x509.Certificate{w.leafs[of]}
		id.mu.Unlock()
		_, from = id.Welcomed()
		return at, from, true
	}
	return at, "", false
}

func TestLearn(t *testing.T) {
	w := newTown(t)
	id := w.load(w.built)
	if at, _, ok := w.session(id, w.first, w.home.MQTT); !ok {
		t.Fatal("it looks at", at)
	}
	if h := id.Held(); h.Number != 0 || h.Using != "" {
		t.Errorf("%+v before the first", h)
	}
	both := []*authority{w.first, w.next}
	env := w.post(w.first, 1, both, w.home)
	if changed, err := id.Learn(env, later); !changed || err != nil {
		t.Fatal(changed, err)
	}
	if changed, err := id.Learn(env, later); changed || err != nil {
		t.Error("learnt again:", changed, err)
	}
	if r := id.Renewal(); r.Due.Before(r.From.Add(r.Expires.Sub(r.From) / 2)) {
		t.Error("it renews, though its CA issues:", r)
	}
	// The next CA issues: the device wants a certificate of it soon.
	if _, err := id.Learn(w.post(w.next, 2, []*authority{w.next, w.first}, movedTo, w.home), later); err != nil {
		t.Fatal(err)
	}
	if r := id.Renewal(); r.Due.After(r.From.Add(r.Expires.Sub(r.From)/3)) && r.Due.After(later.Add(24*time.Hour)) {
		t.Error("it does not renew:", r)
	}
	if h := id.Held(); h.Number != 2 || h.Using != w.home.MQTT {
		t.Errorf("%+v: it is still at home", h)
	}
	// It looks at the new address first, at the former one when that is silent.
	for i, want := range []string{movedTo.MQTT, w.home.MQTT, movedTo.MQTT} {
		if at, _, _ := w.session(id, w.first); at != want {
			t.Errorf("try %d at %s, not %s", i, at, want)
		}
	}
	if at, from, ok := w.session(id, w.first, w.home.MQTT); !ok || from != "" || !id.Way().Fallback || !strings.Contains(id.Way().Trouble, "no such host") {
		t.Errorf("at %s, from %q, %+v", at, from, id.Way())
	}
	if h := id.Held(); h.Using != w.home.MQTT || h.Trouble == "" {
		t.Errorf("%+v on the fallback", h)
	}
	if at, from, ok := w.session(id, w.next, movedTo.MQTT); !ok || from != w.home.MQTT || id.Way().Fallback || id.Held().Using != "" {
		t.Errorf("moved to %s from %q, %+v", at, from, id.Held())
	}
	// The former CA goes; the own certificate is still of it, and is still shown.
	if _, err := id.Learn(w.post(w.next, 3, []*authority{w.next}, movedTo), later); err != nil {
		t.Fatal(err)
	}
	again := w.load(w.built)
	if diff := cmp.Diff(id.Held(), again.Held()); diff != "" {
		t.Error(diff)
	}
	if len(again.trusted) != 1 || len(again.ways) != 1 || again.Damage() != "" {
		t.Errorf("%d CAs, ways %v, %q", len(again.trusted), again.ways, again.Damage())
	}
}

func TestLearnRefusals(t *testing.T) {
	w := newTown(t)
	of := func(device string) *wire.Envelope {
		env, err := wire.SignSignpost(w.first.key, &wire.Signpost{Device: device, Number: 9, CAs: [][]byte{w.first.cert.Raw}, Addresses: []wire.Address{movedTo}})
		if err != nil {
			t.Fatal(err)
		}
		return env
	}
	leaf := func() *wire.Envelope {
		s := &wire.Signpost{Device: crashName, Number: 9, CAs: [][]byte{w.first.server(t, "x", around(later)).Certificate[0]}, Addresses: []wire.Address{movedTo}}
		env, err := wire.SignSignpost(w.first.key, s)
		if err != nil {
			t.Fatal(err)
		}
		return env
	}
	cut := w.post(w.first, 9, []*authority{w.first}, movedTo)
	cut.Payload = cut.Payload[:len(cut.Payload)-1]
	for name, tc := range map[string]struct {
		env  *wire.Envelope
		want error
	}{
		"signed by a CA that is not trusted":     {w.post(w.other, 9, []*authority{w.first}, movedTo), wire.ErrSignature},
		"by itself":                              {w.post(w.next, 9, []*authority{w.next}, movedTo), wire.ErrSignature},
		"cut":                                    {cut, wire.ErrSignature},
		"of another device":                      {of("meter-2"), ErrSignpost},
		"an older number":                        {w.post(w.first, 1, []*authority{w.first}, movedTo), ErrSignpost},
		"the same number, saying something else": {w.post(w.first, 2, []*authority{w.first}, movedTo), ErrSignpost},
		"without the CA of the server that sends it": {w.post(w.first, 9, []*authority{w.next}, movedTo), ErrNotThisServer},
		"a CA that is none":                          {leaf(), ErrSignpost},
	} {
		id := w.load(w.built)
		w.session(id, w.first, w.home.MQTT)
		if id.post == nil {
			if _, err := id.Learn(w.post(w.first, 2, []*authority{w.first}, w.home), later); err != nil {
				t.Fatal(err)
			}
		}
		before := id.Held()
		if changed, err := id.Learn(tc.env, later); changed || !errors.Is(err, tc.want) || !errors.Is(err, ErrSignpost) {
			t.Errorf("%s: %v, %v", name, changed, err)
		}
		if diff := cmp.Diff(before, id.Held()); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	// Before a handshake nothing is believed.
	id := w.load(w.built)
	if _, err := id.Learn(w.post(w.first, 9, []*authority{w.first}, movedTo), later); !errors.Is(err, ErrNotThisServer) {
		t.Error(err)
	}
}

// A name that is wrong and the only one: the way that worked is kept until another
// works, over restarts.
func TestWrongNameStrandsNobody(t *testing.T) {
	w := newTown(t)
	id := w.load(w.built)
	w.session(id, w.first, w.home.MQTT)
	if _, err := id.Learn(w.post(w.first, 1, []*authority{w.first}, nowhere), later); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		id = w.load(w.built)
		w.session(id, w.first, w.home.MQTT)
		if at, _, ok := w.session(id, w.first, w.home.MQTT); !ok || !id.Way().Fallback {
			t.Fatal("stranded at", at)
		}
	}
	if _, err := id.Learn(w.post(w.first, 2, []*authority{w.first}, movedTo), later); err != nil {
		t.Fatal(err)
	}
	if _, from, ok := w.session(id, w.first, w.home.MQTT, movedTo.MQTT); !ok || from != w.home.MQTT {
		t.Error("did not move", from)
	}
	if id = w.load(w.built); len(id.ways) != 1 || id.ways[0] != movedTo {
		t.Errorf("the way that is no longer needed is kept: %v", id.ways)
	}
}

// The first way is looked at without showing anything: nobody, another server and
// our own are told apart.
func TestProbe(t *testing.T) {
	w := newTown(t)
	impostor := newServer(t)
	at := func(s *serverSim) wire.Address {
		return wire.Address{Server: s.URL, MQTT: strings.TrimPrefix(s.URL, "https://")}
	}
	for i, tc := range []struct {
		first wire.Address
		good  bool
	}{{nowhere, false}, {at(impostor), false}, {at(w.serverSim), true}} {
		id := w.load(w.built)
		w.session(id, w.first, w.home.MQTT)
		w.session(id, w.first, w.home.MQTT)
		if !id.arrived {
			w.session(id, w.first, w.home.MQTT)
		}
		if _, err := id.Learn(w.post(w.first, int64(i+1), []*authority{w.first}, tc.first, w.home), later); err != nil {
			t.Fatal(err)
		}
		if err := id.Probe(t.Context(), untrusted); (err == nil) != tc.good || !tc.good && id.Held().Trouble == "" {
			t.Errorf("%s: %v, %+v", tc.first.MQTT, err, id.Held())
		}
	}
}

// A file that is damaged is gone on without, as enrolled.
func TestDamagedSignpost(t *testing.T) {
	w := newTown(t)
	id := w.load(w.built)
	w.session(id, w.first, w.home.MQTT)
	if _, err := id.Learn(w.post(w.first, 1, []*authority{w.next, w.first}, movedTo, w.home), later); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(crashDir, fileSignpost)
	good, err := durable.ReadFile(w.built, path, maxFile)
	if err != nil {
		t.Fatal(err)
	}
	var p post
	if err := json.Unmarshal(good, &p); err != nil {
		t.Fatal(err)
	}
	change := func(f func(*post)) []byte {
		x := p
		f(&x)
		b, err := json.Marshal(&x)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for name, b := range map[string][]byte{
		"empty": {}, "cut": good[:len(good)/2], "null": []byte("null"), "another format": change(func(p *post) { p.Format = 2 }),
		"no CA": change(func(p *post) { p.CAs = nil }), "a CA that is none": change(func(p *post) { p.CAs = [][]byte{{1}} }),
		"no address": change(func(p *post) { p.Addresses = nil }), "a bad way back": change(func(p *post) { p.Kept = &wire.Address{} }),
	} {
		if err := durable.WriteFile(w.built, "test", path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		id := w.load(w.built)
		if id.Damage() == "" || len(id.ways) != 1 || id.ways[0] != w.home || id.Held().Number != 0 {
			t.Errorf("%s: %q, %v", name, id.Damage(), id.ways)
		}
		if at, _, ok := w.session(id, w.first, w.home.MQTT); !ok {
			t.Errorf("%s: looks at %s", name, at)
		}
		if changed, err := id.Learn(w.post(w.first, 5, []*authority{w.next, w.first}, movedTo, w.home), later); !changed || err != nil {
			t.Errorf("%s: told again: %v, %v", name, changed, err)
		}
	}
}

// stage is one step of a server's life as a device sees it.
type stage struct {
	env     *wire.Envelope
	of      *authority // whose certificate the server shows
	answers []string   // addresses where it answers from then on
}

// stages are a change of CA and name, then a name that is wrong, then a right one.
func (w *town) stages() []stage {
	if w.said != nil {
		return w.said
	}
	home, moved := w.home.MQTT, movedTo.MQTT
	w.said = []stage{
		{w.post(w.first, 1, []*authority{w.first, w.next}, w.home), w.first, []string{home}},
		{w.post(w.first, 2, []*authority{w.next, w.first}, movedTo, w.home), w.first, []string{home, moved}},
		{w.post(w.next, 3, []*authority{w.next}, movedTo), w.next, []string{moved}},
		{w.post(w.next, 4, []*authority{w.next}, nowhere), w.next, []string{moved}},
		{w.post(w.next, 5, []*authority{w.next}, w.home), w.next, []string{moved, home}},
	}
	return w.said
}

// reach is the agent's loop until a welcome.
func (w *town) reach(id *Identity, s stage) error {
	var at string
	for range 4 {
		var ok bool
		if at, _, ok = w.session(id, s.of, s.answers...); ok {
			if verifyPeer(id) != nil {
				return fmt.Errorf("the server at %s is not known", at)
			}
			return nil
		}
	}
	return fmt.Errorf("no session, last at %s of %v", at, id.ways)
}

func verifyPeer(id *Identity) error {
	_, err := id.server[0].Verify(x509.VerifyOptions{Roots: id.roots(), CurrentTime: middle(id.server[0]), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	return err
}

// follow goes from the first stage that the device does not hold to the last; done is
// called after each signpost and each arrival.
func (w *town) follow(f durable.FS, done func()) error {
	id, err := Load(f, crashDir)
	if err != nil {
		return err
	}
	for _, s := range w.stages() {
		if number(s.env) < id.Held().Number {
			continue // the server has gone on
		}
		if err := w.reach(id, s); err != nil {
			return err
		}
		if id.Held().Number < number(s.env) {
			if _, err := id.Learn(s.env, later); err != nil {
				return err
			}
		}
		done()
		if err := w.reach(id, s); err != nil {
			return err
		}
		if id.Way().Fallback { // another try at the first address
			if err := w.reach(id, s); err != nil {
				return err
			}
		}
		if id.post.Last != id.Way().MQTT {
			return fmt.Errorf("it arrived at %s, and remembers %s", id.Way().MQTT, id.post.Last)
		}
		done()
	}
	return nil
}

func number(env *wire.Envelope) int64 {
	var s wire.Signpost
	if wire.Decode(env.Payload, &s) != nil {
		return 0
	}
	return s.Number
}

// whole wants one identity that reaches its server, whatever stage that is at, and
// that holds what was acknowledged to it.
func (w *town) whole(after *crashfs.FS, done int) error {
	if err := durable.Sweep(after, "identity.sweep", crashDir); err != nil {
		return err
	}
	id, err := Load(after, crashDir)
	if err != nil {
		return err
	}
	if id.Damage() != "" {
		return errors.New(id.Damage())
	}
	stages := w.stages()
	holds, least := int(id.Held().Number), (done+1)/2
	if holds < least || holds > least+1 {
		return fmt.Errorf("it holds signpost %d after %d steps", holds, done)
	}
	// The server has said what the device holds, and may have gone on by one.
	for _, s := range stages[max(holds-1, 0):min(max(holds+1, 1), len(stages))] {
		fresh, err := Load(after, crashDir)
		if err != nil {
			return err
		}
		if err := w.reach(fresh, s); err != nil {
			return fmt.Errorf("holding %d, stage %d: %w", holds, number(s.env), err)
		}
	}
	if least > 0 && done == 2*least && id.post.Last == "" {
		return errors.New("it forgot where it arrived")
	}
	if err := w.follow(after, func() {}); err != nil {
		return fmt.Errorf("gone on: %w", err)
	}
	if id, err = Load(after, crashDir); err != nil || id.Held().Number != 5 || id.ways[0] != w.home || len(id.ways) != 1 {
		return fmt.Errorf("in the end: %v, %v", id.ways, err)
	}
	for _, name := range after.Names() {
		if strings.Contains(name, "/.") {
			return fmt.Errorf("%s is left over", name)
		}
	}
	return nil
}

func TestCrashesInFollowing(t *testing.T) {
	w := newTown(t)
	x := crashfs.Explorer{Limit: 128, Check: w.whole}
	r, err := x.Run(w.built, w.follow)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("5 signposts, %d crash points, %d states (%d points sampled)", len(r.Labels)+1, r.States, r.Sampled)
}

// Leaving out any sync or rename is found.
func TestEveryMissingSyncOfFollowingIsFound(t *testing.T) {
	w := newTown(t)
	for _, label := range []string{"identity.signpost.sync", "identity.signpost.rename", "identity.signpost.syncdir", "identity.arrived.sync", "identity.arrived.rename"} {
		x := crashfs.Explorer{Limit: 32, Check: w.whole, Before: func(_ *crashfs.FS, s crashfs.Step) error {
			if s.Label == label {
				return crashfs.ErrSkip
			}
			return nil
		}}
		_, err := x.Run(w.built, w.follow)
		var v *crashfs.Violation
		if !errors.As(err, &v) {
			t.Errorf("without %s: %v", label, err)
		}
	}
}

// Any step may fail: nothing is half done, and the device goes on.
func TestEveryStepOfFollowingMayFail(t *testing.T) {
	steps := 0
	for i := 0; ; i++ {
		w := newTown(t)
		f, n, label := w.built, -1, ""
		f.Before = func(st crashfs.Step) error {
			if n++; n == i {
				label = st.Label
				return errors.New("no space left on device")
			}
			return nil
		}
		first := w.follow(f, func() {})
		f.Before = nil
		if label == "" {
			break
		}
		steps++
		if first == nil {
			t.Errorf("step %d %s fails, and nobody notices", i, label)
		}
		if err := w.follow(f, func() {}); err != nil {
			t.Errorf("step %d %s fails: %v", i, label, err)
		}
	}
	t.Logf("%d failing steps", steps)
}

// A renewal into another CA is cut at every step.
func TestCrashesInRenewalToAnotherCA(t *testing.T) {
	s, enrolled := newRenewals(t)
	first, next := s.ca, newAuthority(t)
	build := func() *crashfs.FS {
		s.ca = first
		f := enrolled()
		id := s.load(f)
		post, err := wire.SignSignpost(first.key, &wire.Signpost{Device: crashName, Number: 1, CAs: [][]byte{next.cert.Raw, first.cert.Raw}, Addresses: []wire.Address{{Server: id.Server, MQTT: id.MQTT}}})
		if err != nil {
			t.Fatal(err)
		}
		id.server = []*x509.Certificate{parse(t, first.server(t, "x", around(later)).Certificate[0])}
		if _, err := id.Learn(post, later); err != nil {
			t.Fatal(err)
		}
		f.Settle()
		s.ca = next
		return f
	}
	r, err := s.explore(crashfs.Explorer{Limit: 128}, build)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("1 operation, %d crash points, %d states (%d points sampled)", len(r.Labels)+1, r.States, r.Sampled)
}

// FuzzSignpostFile reads any file: no panic, and no way that leads nowhere.
func FuzzSignpostFile(f *testing.F) {
	f.Add([]byte(`{"format":1,"number":1,"mark":"","cas":["MAA="],"addresses":[{"server":"https://a:1","mqtt":"a:1"}],"last":"a:1","since":1}`))
	f.Add([]byte(`{}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, b []byte) {
		fs := crashfs.New()
		if err := durable.MkdirAll(fs, "test", crashDir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := durable.WriteFile(fs, "test", filepath.Join(crashDir, fileSignpost), b, 0o600); err != nil {
			t.Fatal(err)
		}
		p, err := readPost(fs, crashDir, crashName)
		if err == nil && p != nil && (len(p.ways()) == 0 || len(parsed(p.CAs)) == 0) {
			t.Error("a file that leads nowhere is taken")
		}
	})
}
