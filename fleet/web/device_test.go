package web

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

func TestEnrolment(t *testing.T) {
	s := newServer(t)
	s.ask(fleet.RoleOperator, "POST", "/v1/enrol-tokens", map[string]any{"channel": "dev"}).refused(409, "catalog.empty")
	s.ceremony()
	var made TokenView
	s.ask(fleet.RoleOperator, "POST", "/v1/enrol-tokens", map[string]any{"channel": "dev", "labels": map[string]string{"site": "harbour"}, "max": 1, "expires": "1h"}).ok(&made)
	req := enrolRequest(t, made.Token, "meter-1")
	var first, again wire.EnrolReply
	s.ask("", "POST", "/v1/enrol", req).ok(&first)
	s.ask("", "POST", "/v1/enrol", req).ok(&again)
	if first.Device != "meter-1" || first.MQTT != "fleet.test:8883" || len(first.CatalogRoots) != 1 || len(first.DirectorRoots) != 1 {
		t.Errorf("enrolled as %q at %q with %d and %d roots", first.Device, first.MQTT, len(first.CatalogRoots), len(first.DirectorRoots))
	}
	if d := cmp.Diff(first, again); d != "" {
		t.Error("asked again:", d)
	}
	s.ask("", "POST", "/v1/enrol", enrolRequest(t, made.Token, "meter-2")).refused(401, "token.spent")
	wrong := req
	wrong.Secret = make([]byte, 32)
	s.ask("", "POST", "/v1/enrol", wrong).refused(401, "token.unknown")
	forged := enrolRequest(t, made.Token, "meter-1")
	forged.PublicKey = req.PublicKey
	s.ask("", "POST", "/v1/enrol", forged).refused(400, "request.malformed")
	var tokens page[TokenView]
	s.ask(fleet.RoleOperator, "GET", "/v1/enrol-tokens", nil).ok(&tokens.Body)
	if len(tokens.Body.Items) != 1 || tokens.Body.Items[0].Used != 1 || tokens.Body.Items[0].Token != "" {
		t.Errorf("tokens %+v", tokens.Body.Items)
	}
	s.ask(fleet.RoleOperator, "DELETE", "/v1/enrol-tokens/"+made.ID, nil).ok(nil)
	s.ask("", "POST", "/v1/enrol", req).refused(401, "token.unknown")
}

func TestDevices(t *testing.T) {
	s := newServer(t)
	s.ceremony()
	for i := range 5 {
		s.enrol(fmt.Sprintf("meter-%d", i), map[string]string{"site": []string{"harbour", "station"}[i%2]})
	}
	var all []string
	next := ""
	for {
		var p page[DeviceView]
		s.ask(fleet.RoleViewer, "GET", "/v1/devices?limit=2&after="+next, nil).ok(&p.Body)
		if len(p.Body.Items) > 2 {
			t.Fatalf("a page of %d", len(p.Body.Items))
		}
		for _, d := range p.Body.Items {
			all = append(all, d.ID)
		}
		if next = p.Body.Next; next == "" {
			break
		}
	}
	if d := cmp.Diff([]string{"meter-0", "meter-1", "meter-2", "meter-3", "meter-4"}, all); d != "" {
		t.Error(d)
	}
	var p page[DeviceView]
	s.ask(fleet.RoleViewer, "GET", "/v1/devices?selector=site%3Dstation,class%3Damd64-test", nil).ok(&p.Body)
	if len(p.Body.Items) != 2 {
		t.Errorf("the selector found %d devices", len(p.Body.Items))
	}
	var d DeviceView
	s.ask(fleet.RoleOperator, "PATCH", "/v1/devices/meter-0/labels", map[string]any{"set": map[string]string{"tier": "one"}, "remove": []string{"site"}}).ok(&d)
	if diff := cmp.Diff(map[string]string{"tier": "one"}, d.Labels); diff != "" {
		t.Error(diff)
	}
	s.ask(fleet.RoleOperator, "POST", "/v1/devices/meter-0/revoke", nil).ok(&d)
	if d.Status != fleet.DeviceRevoked || len(s.revoked) != 1 {
		t.Errorf("status %s, sessions ended %v", d.Status, s.revoked)
	}
	for _, path := range []string{"/v1/devices/none", "/v1/devices/none/events", "/v1/devices/none/samples"} {
		s.ask(fleet.RoleViewer, "GET", path, nil).refused(404, "device.unknown")
	}
}
