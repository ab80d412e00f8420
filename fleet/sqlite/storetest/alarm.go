package storetest

import (
	"fmt"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dunlin-edge/dunlin/fleet"
)

func alarms(s *suite) {
	raise := func(n int, x fleet.Alarm, fresh bool) {
		s.Helper()
		got, err := s.RaiseAlarm(s.Context(), x, act(n, "alarm.raise", x.Subject))
		s.must(err)
		if got != fresh {
			s.Errorf("raising %s of %s: fresh %v", x.Kind, x.Subject, got)
		}
	}
	clears := func(n int, kind, subject string, there bool) {
		s.Helper()
		got, err := s.ClearAlarm(s.Context(), kind, subject, act(n, "alarm.clear", subject))
		s.must(err)
		if got != there {
			s.Errorf("clearing %s of %s: there %v", kind, subject, got)
		}
	}
	first := fleet.Alarm{Kind: "a.b", Subject: "meter-1", Since: start, Text: "wrong", Next: "mend it"}
	raise(1, first, true)
	other := fleet.Alarm{Kind: "a.b", Subject: "meter-2", Since: start.Add(-time.Hour), Text: "wrong too", Next: "mend it", Urgent: true}
	raise(2, other, true)
	again := first
	again.Since, again.Text, again.Next, again.Urgent = start.Add(time.Hour), "worse", "hurry", true
	raise(3, again, false)
	again.Since = first.Since
	s.reopen()
	got, err := s.Alarms(s.Context())
	s.must(err)
	if diff := cmp.Diff([]fleet.Alarm{other, again}, got); diff != "" {
		s.Error(diff)
	}
	clears(4, "a.b", "meter-2", true)
	clears(5, "a.b", "meter-2", false)
	clears(6, "c.d", "meter-1", false)
	got, err = s.Alarms(s.Context())
	s.must(err)
	if diff := cmp.Diff([]fleet.Alarm{again}, got); diff != "" {
		s.Error(diff)
	}
	as, err := s.Audit(s.Context(), "", "", 9)
	s.must(err)
	var acts []string
	for _, a := range as { // the newest first
		acts = append(acts, fmt.Sprint(a.Act, " ", a.Object))
	}
	if diff := cmp.Diff([]string{"alarm.clear meter-2", "alarm.raise meter-2", "alarm.raise meter-1"}, acts); diff != "" {
		s.Error(diff)
	}
}
