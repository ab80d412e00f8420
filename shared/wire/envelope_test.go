package wire_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dunlin-edge/dunlin/shared/wire"
)

func TestEnvelope(t *testing.T) {
	key, other := newKey(t), newKey(t)
	want := messages["report"].(*wire.Report)
	env, err := wire.Sign(key, wire.ReportType, want)
	if err != nil {
		t.Fatal(err)
	}
	var got wire.Report
	if err := env.Open(&key.PublicKey, wire.ReportType, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, &got); diff != "" {
		t.Fatal(diff)
	}
	for name, c := range map[string]struct {
		key    *ecdsa.PublicKey
		typ    string
		change func(*wire.Envelope)
	}{
		"another key":          {&other.PublicKey, wire.ReportType, func(*wire.Envelope) {}},
		"another type wanted":  {&key.PublicKey, "text/plain", func(*wire.Envelope) {}},
		"another type said":    {&key.PublicKey, "text/plain", func(e *wire.Envelope) { e.Type = "text/plain" }},
		"payload changed":      {&key.PublicKey, wire.ReportType, func(e *wire.Envelope) { e.Payload[len(e.Payload)-1] ^= 1 }},
		"payload of no bytes":  {&key.PublicKey, wire.ReportType, func(e *wire.Envelope) { e.Payload = nil }},
		"signature changed":    {&key.PublicKey, wire.ReportType, func(e *wire.Envelope) { e.Signature[len(e.Signature)-1] ^= 1 }},
		"signature missing":    {&key.PublicKey, wire.ReportType, func(e *wire.Envelope) { e.Signature = nil }},
		"boundary moved":       {&key.PublicKey, wire.ReportType + " ", func(e *wire.Envelope) { e.Type += " "; e.Payload = e.Payload[1:] }},
		"payload of a request": {&key.PublicKey, wire.ReportType, func(e *wire.Envelope) { e.Payload = []byte("dunlin enrol v1") }},
	} {
		e := wire.Envelope{Type: env.Type, Payload: append([]byte(nil), env.Payload...), Signature: append([]byte(nil), env.Signature...)}
		c.change(&e)
		if err := e.Open(c.key, c.typ, new(wire.Report)); !errors.Is(err, wire.ErrSignature) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A signed payload is read as strictly as any message.
func TestEnvelopeOfSomethingElse(t *testing.T) {
	key := newKey(t)
	env, err := wire.Sign(key, wire.ReportType, map[int]string{99: "x"})
	if err != nil {
		t.Fatal(err)
	}
	if err := env.Open(&key.PublicKey, wire.ReportType, new(wire.Report)); !errors.Is(err, wire.ErrMalformed) {
		t.Fatal(err)
	}
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}
