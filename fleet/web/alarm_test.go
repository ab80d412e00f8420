package web

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/alarm"
)

// TestAlarms wants alarms listed as raised, the urgent first, and ended by an
// operator's name.
func TestAlarms(t *testing.T) {
	s := newServer(t)
	var none page[AlarmView]
	s.ask(fleet.RoleViewer, "GET", "/v1/alarms", nil).ok(&none.Body)
	if none.Body.Items == nil || len(none.Body.Items) != 0 {
		t.Errorf("none yet: %+v", none)
	}
	board := s.config.Alarms.(*alarm.Board)
	board.Raise(t.Context(), fleet.Alarm{Kind: "metadata.expires", Subject: "catalog root", Text: "ends in 50 days", Next: "renew"})
	board.Raise(t.Context(), fleet.Alarm{Kind: "certificate.cloned", Subject: "meter-1", Text: "seen twice", Next: "revoke", Urgent: true})
	var got page[AlarmView]
	s.ask(fleet.RoleViewer, "GET", "/v1/alarms", nil).ok(&got.Body)
	var kinds []string
	for _, x := range got.Body.Items {
		kinds = append(kinds, x.Kind)
	}
	if d := cmp.Diff([]string{"certificate.cloned", "metadata.expires"}, kinds); d != "" {
		t.Error(d)
	}
	board.Raise(t.Context(), fleet.Alarm{Kind: "a.b", Subject: "a \"quoted\"\nname"})
	text := string(s.ask(fleet.RoleViewer, "GET", "/metrics", nil).body)
	for _, want := range []string{"\ndunlin_alarms 3\n", `dunlin_alarm_since_seconds{kind="certificate.cloned",subject="meter-1",urgent="true"} 17`, `subject="a \"quoted\"\nname"`} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
	s.ask(fleet.RoleOperator, "DELETE", "/v1/alarms/metadata.expires/catalog%20root", nil).ok(nil)
	s.ask(fleet.RoleOperator, "DELETE", "/v1/alarms/metadata.expires/catalog%20root", nil).refused(404, "alarm.unknown")
	if d := cmp.Diff([]string{"alarm.raise catalog root", "alarm.raise meter-1", "alarm.raise a \"quoted\"\nname", "alarm.clear catalog root"}, s.acts()); d != "" {
		t.Error(d)
	}
}
