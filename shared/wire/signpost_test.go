package wire_test

import (
	"crypto/ecdsa"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dunlin-edge/dunlin/shared/wire"
)

// A signpost is believed by the signature of a CA that is known, and as that only.
func TestOpenSignpost(t *testing.T) {
	old, next, other := newKey(t), newKey(t), newKey(t)
	want := messages["signpost"].(*wire.Signpost)
	env, err := wire.SignSignpost(next, want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := env.OpenSignpost([]*ecdsa.PublicKey{&old.PublicKey, &next.PublicKey})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	report, err := wire.Sign(next, wire.ReportType, want)
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		env  *wire.Envelope
		keys []*ecdsa.PublicKey
	}{
		"no CA":      {env, nil},
		"another CA": {env, []*ecdsa.PublicKey{&old.PublicKey, &other.PublicKey}},
		"a report":   {report, []*ecdsa.PublicKey{&next.PublicKey}},
	} {
		if _, err := tc.env.OpenSignpost(tc.keys); !errors.Is(err, wire.ErrSignature) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := wire.SignSignpost(next, &wire.Signpost{Device: "meter-1"}); err == nil {
		t.Error("an empty signpost is signed")
	}
}
