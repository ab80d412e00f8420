package web

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/shared/bundle"
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
