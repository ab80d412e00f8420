package web

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/catalog/catalogtest"
	"github.com/dunlin-edge/dunlin/shared/bundle"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

// TestBadRequests sends what is not to be understood to every route that reads a
// body or a query: each is refused with a code, and nothing is changed.
func TestBadRequests(t *testing.T) {
	s := readers(t)
	before := s.acts()
	const op, pub = fleet.RoleOperator, fleet.RolePublisher
	good := bundle.DigestOf([]byte("bytes"))
	for _, c := range []struct {
		name, role, method, path string
		body                     any
		status                   int
		code                     string
	}{
		{"path", op, "GET", "/v1/nothing", nil, 404, "route.unknown"},
		{"method", op, "DELETE", "/v1/devices", nil, 404, "route.unknown"},
		{"climbing path", op, "GET", "/v1/devices/..%2f..%2fetc", nil, 404, "device.unknown"},
		{"limit text", op, "GET", "/v1/devices?limit=many", nil, 400, "request.malformed"},
		{"limit range", op, "GET", "/v1/devices?limit=1001", nil, 400, "request.malformed"},
		{"selector", op, "GET", "/v1/devices?selector=a%20in%20(", nil, 400, "selector.malformed"},
		{"long selector", op, "GET", "/v1/devices?selector=" + strings.Repeat("a", 1025), nil, 400, "request.malformed"},
		{"no body", op, "POST", "/v1/rollouts", nil, 400, "request.malformed"},
		{"half a body", op, "POST", "/v1/rollouts", `{"model": "reader", `, 400, "request.malformed"},
		{"deep body", op, "POST", "/v1/rollouts", strings.Repeat(`[`, 100_000), 400, "request.malformed"},
		{"long body", op, "POST", "/v1/rollouts", `{"model": "` + strings.Repeat("a", maxBody) + `"}`, 413, "request.too_large"},
		{"unknown key", op, "POST", "/v1/rollouts", `{"model":"reader","version":"1.0.0","channel":"dev","selector":"","force":true}`, 400, "request.malformed"},
		{"no selector", op, "POST", "/v1/rollouts", `{"model":"reader","version":"1.0.0","channel":"dev"}`, 400, "request.malformed"},
		{"number for text", op, "POST", "/v1/rollouts", `{"model":1,"version":"1.0.0","channel":"dev","selector":""}`, 400, "request.malformed"},
		{"duration", op, "POST", "/v1/rollouts", `{"model":"reader","version":"1.0.0","channel":"dev","selector":"","bake":"soon"}`, 400, "request.malformed"},
		{"negative duration", op, "POST", "/v1/rollouts", `{"model":"reader","version":"1.0.0","channel":"dev","selector":"","bake":"-1s"}`, 400, "request.malformed"},
		{"model name", op, "POST", "/v1/rollouts", `{"model":"../reader","version":"1.0.0","channel":"dev","selector":""}`, 422, "rollout.invalid"},
		{"release", op, "POST", "/v1/rollouts", `{"model":"reader","version":"9.0.0","channel":"dev","selector":""}`, 404, "release.unknown"},
		{"release of another channel", op, "POST", "/v1/rollouts", `{"model":"reader","version":"1.0.0","channel":"production","selector":""}`, 404, "release.unknown"},
		{"nobody", op, "POST", "/v1/rollouts", `{"model":"reader","version":"1.0.0","channel":"dev","selector":"site=nowhere"}`, 422, "rollout.no_devices"},
		{"bad selector", op, "POST", "/v1/rollouts", `{"model":"reader","version":"1.0.0","channel":"dev","selector":"=="}`, 400, "selector.malformed"},
		{"shrinking stages", op, "POST", "/v1/rollouts", `{"model":"reader","version":"1.0.0","channel":"dev","selector":"","stages":[{"percent":50},{"percent":10}]}`, 422, "rollout.invalid"},
		{"label key", op, "PATCH", "/v1/devices/meter-1/labels", `{"set":{"Site!":"x"}}`, 400, "label.malformed"},
		{"label value", op, "PATCH", "/v1/devices/meter-1/labels", `{"set":{"site":"a\nb"}}`, 400, "label.malformed"},
		{"label of nobody", op, "PATCH", "/v1/devices/none/labels", `{"set":{"site":"x"}}`, 404, "device.unknown"},
		{"revoke nobody", op, "POST", "/v1/devices/none/revoke", nil, 404, "device.unknown"},
		{"token channel", op, "POST", "/v1/enrol-tokens", `{"channel":"beta"}`, 400, "request.malformed"},
		{"token count", op, "POST", "/v1/enrol-tokens", `{"channel":"dev","max":100001}`, 400, "request.malformed"},
		{"token for ever", op, "POST", "/v1/enrol-tokens", `{"channel":"dev","expires":"87600h"}`, 400, "request.malformed"},
		{"token label", op, "POST", "/v1/enrol-tokens", `{"channel":"dev","labels":{"":"x"}}`, 400, "label.malformed"},
		{"unknown token", op, "DELETE", "/v1/enrol-tokens/tok_none", nil, 404, "token.unknown"},
		{"role", fleet.RoleAdmin, "POST", "/v1/access", `{"name":"x","role":"root"}`, 400, "request.malformed"},
		{"unknown access", fleet.RoleAdmin, "DELETE", "/v1/access/acc_none", nil, 404, "access.unknown"},
		{"enrolment", "", "POST", "/v1/enrol", `{"token":"tok_x","secret":"","public_key":"","signature":""}`, 400, "request.malformed"},
		{"enrolment base64", "", "POST", "/v1/enrol", `{"token":"tok_x","secret":"!","public_key":"","signature":""}`, 400, "request.malformed"},
		{"digest", pub, "PUT", "/v1/blobs/sha256:zz", []byte("bytes"), 404, "blob.unknown"},
		{"digest path", pub, "PUT", "/v1/blobs/..%2f..%2fx", []byte("bytes"), 404, "blob.unknown"},
		{"other bytes", pub, "PUT", "/v1/blobs/" + good, []byte("other"), 422, "blob.mismatch"},
		{"ceremony", pub, "POST", "/v1/catalog/roots", `{`, 400, "request.malformed"},
		{"amendment", pub, "POST", "/v1/catalog/amendments", `{`, 400, "request.malformed"},
		{"empty amendment", pub, "POST", "/v1/catalog/amendments", `{}`, 422, "catalog.refused"},
		{"second ceremony", pub, "POST", "/v1/catalog/roots", `{}`, 409, "catalog.stale"},
		{"role of no channel", pub, "PUT", "/v1/catalog/roles/root", `{}`, 422, "catalog.refused"},
		{"role that is no metadata", pub, "PUT", "/v1/catalog/roles/dev", `{"signed":null}`, 422, "catalog.refused"},
		{"duplicate keys", pub, "PUT", "/v1/catalog/roles/dev", `{"signatures":[],"signatures":[],"signed":{}}`, 422, "catalog.refused"},
		{"long role", pub, "PUT", "/v1/catalog/roles/dev", strings.Repeat(" ", maxBody+1), 413, "request.too_large"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := s.ask(c.role, c.method, c.path, c.body)
			a.t = t
			a.refused(c.status, c.code)
		})
	}
	if d := cmp.Diff(before, s.acts()); d != "" {
		t.Error("something was done:", d)
	}
	if a := s.ask(pub, "HEAD", "/v1/blobs/"+good, nil); a.status != 404 {
		t.Errorf("the blob is there: %d", a.status)
	}
}

// TestBadEnrolments shows tokens that let nobody in: each has its code, and neither a
// device nor a use of a token comes of it.
func TestBadEnrolments(t *testing.T) {
	s := newServer(t)
	s.ceremony()
	token := func(body map[string]any) string {
		var made TokenView
		s.ask(fleet.RoleOperator, "POST", "/v1/enrol-tokens", body).ok(&made)
		return made.Token
	}
	spent := token(map[string]any{"channel": "dev"})
	first := enrolRequest(t, spent, "meter-1")
	s.ask("", "POST", "/v1/enrol", first).ok(nil)
	open := token(map[string]any{"channel": "dev", "max": 9})
	deleted := token(map[string]any{"channel": "dev"})
	changed := func(change func(*wire.EnrolRequest)) wire.EnrolRequest {
		q := enrolRequest(t, open, "meter-2")
		change(&q)
		return q
	}
	gone := enrolRequest(t, deleted, "meter-2")
	s.ask(fleet.RoleOperator, "DELETE", "/v1/enrol-tokens/"+gone.Token, nil).ok(nil)
	expired := enrolRequest(t, token(map[string]any{"channel": "dev", "expires": "1ms"}), "meter-2") // every look at the test's clock is a millisecond later
	known := func() (out []string) {
		var ds page[DeviceView]
		s.ask(fleet.RoleViewer, "GET", "/v1/devices", nil).ok(&ds.Body)
		for _, d := range ds.Body.Items {
			out = append(out, d.ID)
		}
		var ts page[TokenView]
		s.ask(fleet.RoleOperator, "GET", "/v1/enrol-tokens", nil).ok(&ts.Body)
		for _, x := range ts.Body.Items {
			out = append(out, fmt.Sprint(x.ID, " used ", x.Used))
		}
		return append(out, s.acts()...)
	}
	before := known()
	for _, c := range []struct {
		name   string
		body   wire.EnrolRequest
		status int
		code   string
	}{
		{"expired", expired, 401, "token.expired"},
		{"used before by another key", enrolRequest(t, spent, "meter-2"), 401, "token.spent"},
		{"used before for this name", enrolRequest(t, spent, "meter-1"), 401, "token.spent"},
		{"a name that another key has", enrolRequest(t, open, "meter-1"), 409, "device.exists"},
		{"deleted", gone, 401, "token.unknown"},
		{"never made", changed(func(q *wire.EnrolRequest) { resign(t, q, "tok_none") }), 401, "token.unknown"},
		{"wrong secret", changed(func(q *wire.EnrolRequest) { q.Secret[0] ^= 1 }), 401, "token.unknown"},
		{"short secret", changed(func(q *wire.EnrolRequest) { q.Secret = q.Secret[:31] }), 400, "request.malformed"},
		{"signed for another token", changed(func(q *wire.EnrolRequest) { q.Token = first.Token }), 400, "request.malformed"},
		{"signed by another key", changed(func(q *wire.EnrolRequest) { q.PublicKey = first.PublicKey }), 400, "request.malformed"},
		{"name", changed(func(q *wire.EnrolRequest) { q.Device = "../meter" }), 400, "request.malformed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := s.ask("", "POST", "/v1/enrol", c.body)
			a.t = t
			a.refused(c.status, c.code)
		})
	}
	if d := cmp.Diff(before, known()); d != "" {
		t.Error("something was changed:", d)
	}
	s.ask("", "POST", "/v1/enrol", first).ok(nil) // the same key again is a lost answer
}

// TestBadUploads sends what is not the blob that it is called: nothing is stored.
func TestBadUploads(t *testing.T) {
	s := newServer(t)
	b := bytes.Repeat([]byte("bytes of a model "), 1000)
	path := "/v1/blobs/" + bundle.DigestOf(b)
	altered := slices.Clone(b)
	altered[len(b)/2] ^= 1
	for name, body := range map[string][]byte{"truncated": b[:len(b)-1], "empty": {}, "altered": altered, "longer": append(slices.Clone(b), 0)} {
		t.Run(name, func(t *testing.T) {
			a := s.ask(fleet.RolePublisher, "PUT", path, body)
			a.t = t
			a.refused(422, "blob.mismatch")
			if a := s.ask(fleet.RolePublisher, "HEAD", path, nil); a.status != 404 {
				t.Errorf("it is there: %d", a.status)
			}
		})
	}
	s.ask(fleet.RolePublisher, "PUT", path, b).ok(nil)
}

// TestIncompleteBundles publishes a release while one of its files was not uploaded:
// the catalog stays as it was, and takes it when the file is there.
func TestIncompleteBundles(t *testing.T) {
	online := catalogtest.Online{Keys: shared.keys, Director: shared.director}
	b := catalogtest.Model(t, "reader", "1.0.0", []byte("bytes of a model"))
	for missing := range b.Blobs {
		s := newServer(t)
		p := catalogtest.New(t, 1, 1, online, day0)
		s.ask(fleet.RolePublisher, "POST", "/v1/catalog/roots", p.Ceremony()).ok(nil)
		for d, x := range b.Blobs {
			if d != missing {
				s.ask(fleet.RolePublisher, "PUT", "/v1/blobs/"+d, x).ok(nil)
			}
		}
		catalog := func() string {
			return string(s.ask(fleet.RoleViewer, "GET", "/v1/catalog/metadata", nil).body) + strings.Join(s.acts(), ", ")
		}
		before, role := catalog(), p.SignRole(p.Next("dev", map[*catalogtest.Bundle]int64{b: 1}))
		s.ask(fleet.RolePublisher, "PUT", "/v1/catalog/roles/dev", role).refused(422, "bundle.incomplete")
		if after := catalog(); after != before {
			t.Errorf("without %s the catalog became %s", missing, after)
		}
		s.ask(fleet.RoleViewer, "GET", "/v1/models/reader", nil).refused(404, "model.unknown")
		s.ask(fleet.RolePublisher, "PUT", "/v1/blobs/"+missing, b.Blobs[missing]).ok(nil)
		s.ask(fleet.RolePublisher, "PUT", "/v1/catalog/roles/dev", role).ok(nil)
		s.ask(fleet.RoleViewer, "GET", "/v1/models/reader", nil).ok(nil)
	}
}

func TestBlobs(t *testing.T) {
	s := newServer(t)
	b := []byte("bytes of a model")
	path := "/v1/blobs/" + bundle.DigestOf(b)
	for range 2 { // the second upload changes nothing
		s.ask(fleet.RolePublisher, "PUT", path, b).ok(nil)
	}
	if a := s.ask(fleet.RolePublisher, "HEAD", path, nil); a.status != 200 || a.header.Get("Content-Length") != "16" {
		t.Errorf("%d, %s bytes", a.status, a.header.Get("Content-Length"))
	}
}
