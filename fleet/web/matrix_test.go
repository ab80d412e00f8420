package web

import (
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dunlin-edge/dunlin/fleet"
)

// wantRoles is what every route wants, written by hand: a route that is new or
// wants another role turns TestRoutes red until somebody has thought about it.
var wantRoles = map[string]string{
	"GET /healthz":   public,
	"GET /v1/ca":     public,
	"POST /v1/enrol": public,
	"POST /v1/renew": public,

	"GET /v1/devices":                                 fleet.RoleViewer,
	"GET /v1/devices/{id}":                            fleet.RoleViewer,
	"GET /v1/devices/{id}/events":                     fleet.RoleViewer,
	"GET /v1/devices/{id}/samples":                    fleet.RoleViewer,
	"GET /v1/models":                                  fleet.RoleViewer,
	"GET /v1/models/{model}":                          fleet.RoleViewer,
	"GET /v1/models/{model}/drift":                    fleet.RoleViewer,
	"GET /v1/captures":                                fleet.RoleViewer,
	"GET /v1/captures/{id}":                           fleet.RoleViewer,
	"POST /v1/captures":                               fleet.RoleOperator,
	"POST /v1/captures/{id}/stop":                     fleet.RoleOperator,
	"GET /v1/captures/{id}/samples":                   fleet.RoleOperator,
	"GET /v1/captures/{id}/samples/{device}/{sample}": fleet.RoleOperator,
	"POST /v1/data/erase":                             fleet.RoleOperator,
	"GET /v1/models/{model}/truth":                    fleet.RoleViewer,
	"GET /v1/releases":                                fleet.RoleViewer,
	"GET /v1/rollouts":                                fleet.RoleViewer,
	"GET /v1/rollouts/{id}":                           fleet.RoleViewer,
	"GET /v1/rollouts/{id}/members":                   fleet.RoleViewer,
	"GET /v1/rollouts/{id}/gates":                     fleet.RoleViewer,
	"GET /v1/rollouts/{id}/watch":                     fleet.RoleViewer,
	"GET /v1/audit":                                   fleet.RoleViewer,
	"GET /metrics":                                    fleet.RoleViewer,
	"GET /v1/alarms":                                  fleet.RoleViewer,
	"GET /v1/catalog/metadata":                        fleet.RoleViewer,
	"GET /v1/keys/online":                             fleet.RoleViewer,

	"PATCH /v1/devices/{id}/labels":     fleet.RoleOperator,
	"POST /v1/devices/{id}/revoke":      fleet.RoleOperator,
	"POST /v1/devices/{id}/accept":      fleet.RoleOperator,
	"POST /v1/devices/{id}/reject":      fleet.RoleOperator,
	"POST /v1/devices/{id}/retire":      fleet.RoleOperator,
	"POST /v1/devices/{id}/replace":     fleet.RoleOperator,
	"POST /v1/enrol-tokens":             fleet.RoleOperator,
	"GET /v1/enrol-tokens":              fleet.RoleOperator,
	"DELETE /v1/enrol-tokens/{id}":      fleet.RoleOperator,
	"POST /v1/rollouts":                 fleet.RoleOperator,
	"POST /v1/rollouts/{id}/pause":      fleet.RoleOperator,
	"POST /v1/rollouts/{id}/resume":     fleet.RoleOperator,
	"POST /v1/rollouts/{id}/abort":      fleet.RoleOperator,
	"POST /v1/rollouts/{id}/revert":     fleet.RoleOperator,
	"GET /v1/devices/{id}/why":          fleet.RoleViewer,
	"GET /v1/quarantines":               fleet.RoleViewer,
	"POST /v1/quarantines/{id}/release": fleet.RoleOperator,

	"DELETE /v1/alarms/{kind}/{subject}": fleet.RoleOperator,

	"POST /v1/usb/exports":   fleet.RoleOperator,
	"POST /v1/usb/receipts":  fleet.RoleOperator,
	"GET /v1/blobs/{digest}": fleet.RoleOperator,

	"HEAD /v1/blobs/{digest}":      fleet.RolePublisher,
	"PUT /v1/blobs/{digest}":       fleet.RolePublisher,
	"PUT /v1/catalog/roles/{role}": fleet.RolePublisher,
	"POST /v1/catalog/roots":       fleet.RolePublisher,
	"POST /v1/catalog/amendments":  fleet.RolePublisher,

	"POST /v1/access":        fleet.RoleAdmin,
	"GET /v1/access":         fleet.RoleAdmin,
	"DELETE /v1/access/{id}": fleet.RoleAdmin,
}

// may says which roles reach a route that wants one: viewers read, operators and
// publishers also read, admins do everything.
var may = map[string][]string{
	public:              {"", fleet.RoleViewer, fleet.RoleOperator, fleet.RolePublisher, fleet.RoleAdmin},
	fleet.RoleViewer:    {fleet.RoleViewer, fleet.RoleOperator, fleet.RolePublisher, fleet.RoleAdmin},
	fleet.RoleOperator:  {fleet.RoleOperator, fleet.RoleAdmin},
	fleet.RolePublisher: {fleet.RolePublisher, fleet.RoleAdmin},
	fleet.RoleAdmin:     {fleet.RoleAdmin},
}

// described reads the routes and their roles from the API's own description.
func described(s *server) map[string]string {
	s.t.Helper()
	var doc struct {
		OpenAPI string `json:"openapi"`
		Paths   map[string]map[string]struct {
			Role     string           `json:"x-role"`
			Security []map[string]any `json:"security"`
		} `json:"paths"`
	}
	s.ask("", "GET", "/openapi.json", nil).ok(&doc)
	if !strings.HasPrefix(doc.OpenAPI, "3.1") {
		s.t.Errorf("the description is OpenAPI %q", doc.OpenAPI)
	}
	out := map[string]string{}
	for path, methods := range doc.Paths {
		for method, op := range methods {
			name := strings.ToUpper(method) + " " + path
			out[name] = op.Role
			if (op.Role == public) != (len(op.Security) == 0) {
				s.t.Errorf("%s: role %q, security %v", name, op.Role, op.Security)
			}
		}
	}
	return out
}

func TestRoutes(t *testing.T) {
	if d := cmp.Diff(wantRoles, described(newServer(t))); d != "" {
		t.Error(d)
	}
}

// example is a path of a route with something in place of its parameters.
func example(route string) (method, path string) {
	method, path, _ = strings.Cut(route, " ")
	return method, strings.NewReplacer("{id}", "nobody", "{model}", "nothing", "{digest}", "sha256:"+strings.Repeat("0", 64), "{role}", "dev", "{device}", "nobody", "{sample}", "00", "{kind}", "a.b", "{subject}", "nothing").Replace(path)
}

// stopped tells whether a request was refused for who sent it.
func stopped(a *answer) bool {
	if strings.HasPrefix(a.what, "HEAD ") { // has no body
		return a.status == 401 || a.status == 403
	}
	var p problem
	if json.Unmarshal(a.body, &p) != nil {
		return false
	}
	return a.status == 401 && p.Code == "auth.missing" || a.status == 403 && p.Code == "auth.forbidden"
}

// TestMatrix sends a request to every route that the description has as nobody
// and with every role. Only those who may are not stopped at the door.
func TestMatrix(t *testing.T) {
	s := newServer(t)
	routes := described(s)
	requests := 0
	for _, route := range slices.Sorted(maps.Keys(routes)) {
		method, path := example(route)
		for _, role := range append([]string{""}, everyRole...) {
			a := s.ask(role, method, path, nil)
			requests++
			if want := !slices.Contains(may[routes[route]], role); stopped(a) != want {
				t.Errorf("%s as %q: %d %s, stopped should be %v", route, role, a.status, a.body, want)
			}
			if a.status >= 500 {
				t.Errorf("%s as %q: %d %s", route, role, a.status, a.body)
			}
		}
	}
	t.Logf("%d requests to %d routes", requests, len(routes))
}

// TestBadTokens sends what is no valid token of an admin to every route that
// wants one.
func TestBadTokens(t *testing.T) {
	s := newServer(t)
	admin := s.tokens[fleet.RoleAdmin]
	withdrawn, text := fleet.NewAccess("withdrawn", fleet.RoleAdmin, 0, day0)
	old, oldText := fleet.NewAccess("old", fleet.RoleAdmin, 0, day0)
	old.Expires = day0
	for _, x := range []*fleet.Access{withdrawn, old} {
		if err := s.db.CreateAccess(t.Context(), x, fleet.Audit{}); err != nil {
			t.Fatal(err)
		}
	}
	s.ask(fleet.RoleAdmin, "DELETE", "/v1/access/"+withdrawn.ID, nil).ok(nil)
	bad := map[string]string{
		"unknown": "Bearer " + fleet.AccessPrefix + strings.Repeat("0", 48), "expired": "Bearer " + oldText, "withdrawn": "Bearer " + text,
		"empty": "Bearer ", "no scheme": admin, "other scheme": "Basic " + admin, "cut": "Bearer " + admin[:len(admin)-1], "long": "Bearer " + strings.Repeat("a", 8000),
	}
	for route, role := range described(s) {
		if role == public {
			continue
		}
		method, path := example(route)
		for name, header := range bad {
			a := s.send(method, path, nil, http.Header{"Authorization": {header}})
			if !stopped(a) || a.status != 401 {
				t.Errorf("%s with a token that is %s: %d %s", route, name, a.status, a.body)
			}
		}
	}
}

// TestRefusedChangesNothing sends acts that would succeed, by somebody who may
// not: nothing is changed and nothing audited.
func TestRefusedChangesNothing(t *testing.T) {
	s := newServer(t)
	s.ceremony()
	s.enrol("meter-1", nil)
	s.release("reader", "1.0.0", 1)
	before := s.acts()
	for _, role := range []string{"", fleet.RoleViewer, fleet.RolePublisher} {
		for _, a := range []*answer{
			s.ask(role, "PATCH", "/v1/devices/meter-1/labels", map[string]any{"set": map[string]string{"a": "b"}}),
			s.ask(role, "POST", "/v1/devices/meter-1/revoke", nil),
			s.ask(role, "POST", "/v1/devices/meter-1/retire", nil),
			s.ask(role, "POST", "/v1/devices/meter-1/replace", map[string]any{}),
			s.ask(role, "POST", "/v1/enrol-tokens", map[string]any{"channel": "dev"}),
			s.ask(role, "POST", "/v1/rollouts", map[string]any{"model": "reader", "version": "1.0.0", "channel": "dev", "selector": ""}),
			s.ask(role, "POST", "/v1/access", map[string]any{"name": "me", "role": "admin"}),
		} {
			if !stopped(a) {
				t.Errorf("%s as %q: %d %s", a.what, role, a.status, a.body)
			}
		}
	}
	s.ask(fleet.RoleOperator, "POST", "/v1/access", map[string]any{"name": "me", "role": "admin"}).refused(403, "auth.forbidden")
	if d := cmp.Diff(before, s.acts()); d != "" {
		t.Error(d)
	}
}
