package web

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dunlin-edge/dunlin/fleet"
)

// TestAccess makes a token, uses it, withdraws it; every act is in the audit.
func TestAccess(t *testing.T) {
	s := newServer(t)
	var made AccessView
	s.ask(fleet.RoleAdmin, "POST", "/v1/access", map[string]any{"name": "night shift", "role": "operator", "expires": "8h"}).ok(&made)
	if !strings.HasPrefix(made.Token, fleet.AccessPrefix) || made.Expires == nil {
		t.Fatalf("made %+v", made)
	}
	s.send("GET", "/v1/enrol-tokens", nil, bearer(made.Token)).ok(nil)
	var list page[AccessView]
	s.ask(fleet.RoleAdmin, "GET", "/v1/access", nil).ok(&list.Body)
	for _, x := range list.Body.Items {
		if x.Token != "" {
			t.Errorf("the list shows the token of %s", x.Name)
		}
	}
	if len(list.Body.Items) != len(everyRole)+1 {
		t.Errorf("%d tokens", len(list.Body.Items))
	}
	s.ask(fleet.RoleAdmin, "DELETE", "/v1/access/"+made.ID, nil).ok(nil)
	s.send("GET", "/v1/enrol-tokens", nil, bearer(made.Token)).refused(401, "auth.missing")
	var audit page[AuditView]
	s.ask(fleet.RoleViewer, "GET", "/v1/audit?object="+made.ID, nil).ok(&audit.Body)
	var acts []string
	for _, a := range audit.Body.Items {
		acts = append(acts, a.Act)
		if !strings.HasPrefix(a.Actor, fleet.PrefixAccess) {
			t.Errorf("%s by %q", a.Act, a.Actor)
		}
		if strings.Contains(a.Detail, made.Token) {
			t.Error("the audit holds the token")
		}
	}
	if d := cmp.Diff([]string{"access.delete", "access.create"}, acts); d != "" {
		t.Error(d)
	}
}

// TestDescription wants the description in both forms, and no page that loads
// anything from elsewhere.
func TestDescription(t *testing.T) {
	s := newServer(t)
	for _, path := range []string{"/openapi.json", "/openapi.yaml"} {
		a := s.ask("", "GET", path, nil)
		a.ok(nil)
		if !strings.Contains(string(a.body), "/v1/rollouts/{id}/watch") || strings.Contains(string(a.body), "http://") {
			t.Errorf("%s lacks a route or names a host", path)
		}
	}
	s.ask("", "GET", "/docs", nil).refused(404, "route.unknown")
	a := s.ask("", "GET", "/healthz", nil)
	if a.ok(nil); string(a.body) != "ok\n" {
		t.Errorf("health: %q", a.body)
	}
}

// FuzzBody sends anything to the routes that read JSON. A refusal has a code, and
// nothing becomes an internal error.
func FuzzBody(f *testing.F) {
	s := newServer(f)
	s.ceremony()
	s.release("reader", "1.0.0", 1)
	for _, seed := range []string{
		`{"model":"reader","version":"1.0.0","channel":"dev","selector":"","stages":[{"count":1,"bake":"1s"}]}`,
		`{"token":"tok_1","secret":"AAAA","public_key":"AAAA","signature":"AAAA","facts":{"arch":"amd64"}}`,
		`{"channel":"dev","labels":{"a":"b"},"max":2,"expires":"1h"}`, `{"set":{"a":"b"},"remove":["c"]}`,
		`{"signatures":[],"signed":{"_type":"targets","delegations":null}}`, `{"catalog_root":"AAAA","roles":{"dev":""}}`, `[]`, `null`, `1e999`, "\xff",
	} {
		f.Add([]byte(seed))
	}
	routes := []string{"POST /v1/rollouts", "POST /v1/enrol", "POST /v1/enrol-tokens", "PATCH /v1/devices/meter-1/labels", "PUT /v1/catalog/roles/dev", "POST /v1/catalog/roots", "POST /v1/access"}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, route := range routes {
			method, path, _ := strings.Cut(route, " ")
			req := httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(string(b)))
			req.Header = bearer(s.tokens[fleet.RoleAdmin])
			req.Header.Set("Content-Type", "application/json")
			w := recorder{httptest.NewRecorder()}
			s.handler.ServeHTTP(w, req)
			a := &answer{t, route, w.Code, w.Header(), w.Body.Bytes()}
			if w.Code/100 == 2 {
				continue
			}
			if w.Code == http.StatusInternalServerError {
				t.Fatalf("%s: %s", route, a.body)
			}
			if ct := w.Header().Get("Content-Type"); ct != problemType || !strings.Contains(w.Body.String(), `"code":"`) {
				t.Fatalf("%s: %d %s %s", route, w.Code, ct, a.body)
			}
		}
	})
}

// recorder has deadlines, as every connection does.
type recorder struct{ *httptest.ResponseRecorder }

func (recorder) SetReadDeadline(time.Time) error { return nil }
