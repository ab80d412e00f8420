package wire_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dunlin-edge/dunlin/shared/wire"
)

func TestEnrolTokenText(t *testing.T) {
	token := messages["enrol-token"].(*wire.EnrolToken)
	text := token.String()
	got, err := wire.ParseEnrolToken(" " + text + "\n")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(token, got); diff != "" {
		t.Fatal(diff)
	}
	for name, bad := range map[string]string{
		"nothing":          "",
		"no prefix":        strings.TrimPrefix(text, "dunlin1."),
		"another prefix":   strings.Replace(text, "dunlin1", "dunlin2", 1),
		"prefix alone":     "dunlin1.",
		"cut":              text[:len(text)-4],
		"odd cut":          text[:len(text)-1],
		"a letter more":    text + "A",
		"padded":           text + "=",
		"not base64url":    text[:20] + "+/" + text[22:],
		"a space inside":   text[:20] + " " + text[20:],
		"longer than read": text + strings.Repeat("A", 2048),
	} {
		if _, err := wire.ParseEnrolToken(bad); !errors.Is(err, wire.ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
