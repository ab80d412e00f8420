package storetest

import (
	"cmp"
	"slices"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/dunlin-edge/dunlin/fleet"
)

// tallies compares the counts of several rollouts with their members, one by one.
func tallies(s *suite) {
	first, ms := s.running("m", 1, "a", "b", "c", "d", "e", "f")
	second, _ := s.running("other", 2, "a", "f")
	s.running("third", 3, "a") // is not asked for
	ms[0].Assigned, ms[0].Acked, ms[0].Outcome, ms[0].Answered = start, start, fleet.OutcomeFailed, 1<<63+1
	ms[1].Assigned, ms[1].Acked, ms[1].Outcome = start, start, fleet.OutcomeGood
	ms[2].Assigned, ms[2].Acked, ms[2].Outcome = start, start, fleet.OutcomeGood
	ms[3].Assigned, ms[3].Undone = start, start
	s.must(s.CommitRollout(s.Context(), fleet.Commit{Epoch: s.epoch(), Rollout: *first, Members: ms}, start, signer))
	s.must(s.Revoke(s.Context(), "f", act(9, "device.revoke", "f")))
	got, err := s.Tallies(s.Context(), []string{first.ID, second.ID, "rol_none"})
	s.must(err)
	if len(got) != 2 {
		s.Errorf("%d rollouts", len(got))
	}
	for _, id := range []string{first.ID, second.ID} {
		members, err := s.Members(s.Context(), id)
		s.must(err)
		count := map[fleet.Tally]int{}
		for _, m := range members {
			count[fleet.Tally{Stage: m.Stage, Outcome: m.Outcome, Assigned: !m.Assigned.IsZero(), Acked: !m.Acked.IsZero(),
				Undone: !m.Undone.IsZero(), Back: !m.Undone.IsZero(), Answered: m.Answered > 0, Revoked: m.Revoked}]++
		}
		var want []fleet.Tally
		for t, n := range count {
			t.Devices = n
			want = append(want, t)
		}
		if diff := gocmp.Diff(sorted(want), sorted(got[id])); diff != "" {
			s.Error(diff)
		}
	}
	// One that had acknowledged is back when it has acknowledged the wish after.
	ms[4].Assigned, ms[4].Acked, ms[4].Undone = start, start, start
	s.must(s.CommitRollout(s.Context(), fleet.Commit{Epoch: s.epoch(), Rollout: *first, Members: ms[4:5], Device: "e", Change: func(*fleet.Wish) error { return nil }}, start, signer))
	back := func() (n int) {
		got, err := s.Tallies(s.Context(), []string{first.ID})
		s.must(err)
		for _, t := range got[first.ID] {
			if t.Back {
				n += t.Devices
			}
		}
		return n
	}
	if n := back(); n != 1 {
		s.Errorf("%d back before the wish was acknowledged", n)
	}
	s.must(s.UpdateDevice(s.Context(), "e", func(d *fleet.Device) error { d.Generation = 1; return nil }))
	if n := back(); n != 2 {
		s.Errorf("%d back after it", n)
	}
	if none, err := s.Tallies(s.Context(), nil); err != nil || len(none) != 0 {
		s.Errorf("of no rollout: %v, %v", none, err)
	}
}

func sorted(ts []fleet.Tally) []fleet.Tally {
	slices.SortFunc(ts, func(a, b fleet.Tally) int {
		return cmp.Or(cmp.Compare(a.Stage, b.Stage), cmp.Compare(a.Outcome, b.Outcome), cmp.Compare(bit(a.Undone), bit(b.Undone)), cmp.Compare(bit(a.Revoked), bit(b.Revoked)))
	})
	return ts
}

func bit(b bool) int {
	if b {
		return 1
	}
	return 0
}
