package storetest

import (
	"context"
	"errors"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dunlin-edge/dunlin/fleet"
)

// Signposts are what devices were told of their server.
type Signposts interface {
	Signpost(ctx context.Context, device string) (*fleet.Signpost, error)
	PutSignpost(ctx context.Context, s *fleet.Signpost) error
	Followers(ctx context.Context) ([]fleet.Follower, error)
	Withheld(ctx context.Context, device string) (bool, error)
	Recovered(ctx context.Context, device string, known []byte, r *fleet.Renewal, a fleet.Audit) error
	Certificate(ctx context.Context, device string) ([]byte, error)
}

func signposts(s *suite) {
	for _, id := range []string{"meter-1", "meter-2", "meter-3"} {
		s.enrolled(id, nil)
	}
	s.must(s.Revoke(s.Context(), "meter-3", act(1, "device.revoke", "meter-3")))
	got, err := s.Signpost(s.Context(), "meter-1")
	s.must(err)
	if diff := cmp.Diff(&fleet.Signpost{Device: "meter-1"}, got); diff != "" {
		s.Error("told nothing:", diff)
	}
	want := fleet.Signpost{Device: "meter-1", Offered: []byte("two"), Held: []byte("one"), Using: "a:1", Trouble: "no such host", At: start}
	s.must(s.PutSignpost(s.Context(), &fleet.Signpost{Device: "meter-1", Offered: []byte("one"), Held: []byte{}, At: start.Add(-time.Hour)}))
	s.must(s.PutSignpost(s.Context(), &want))
	s.reopen()
	got, err = s.Signpost(s.Context(), "meter-1")
	s.must(err)
	if diff := cmp.Diff(&want, got); diff != "" {
		s.Error(diff)
	}
	all, err := s.Followers(s.Context())
	s.must(err)
	if len(all) != 2 || all[0].Device != "meter-1" || all[1].Device != "meter-2" || all[1].Signpost.Offered != nil || len(all[1].Certificate) == 0 || all[1].Next != nil {
		s.Fatalf("followers: %+v", all)
	}
	if diff := cmp.Diff(want, all[0].Signpost); diff != "" {
		s.Error(diff)
	}
	// Without a restore no key is forgotten.
	known, err := s.Certificate(s.Context(), "meter-1")
	s.must(err)
	held, err := s.Withheld(s.Context(), "meter-1")
	s.must(err)
	r := &fleet.Renewal{PublicKey: []byte("another key"), Serial: "9", Certificate: []byte("another certificate"), Expires: start}
	if err := s.Recovered(s.Context(), "meter-1", known, r, act(2, "device.recovered", "meter-1")); held || !errors.Is(err, fleet.ErrDeviceRevoked) {
		s.Errorf("withheld %v, recovered: %v", held, err)
	}
}
