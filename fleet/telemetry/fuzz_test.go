package telemetry

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"log/slog"
	"testing"
	"time"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

// drain takes everything and keeps nothing: the fuzzer looks at decoding alone.
type drain struct {
	Store
	key []byte
}

func (d drain) Device(context.Context, string) (*fleet.Device, error) {
	return &fleet.Device{ID: "meter-1", PublicKey: d.key}, nil
}
func (drain) UpdateDevice(context.Context, string, func(*fleet.Device) error) error { return nil }
func (drain) Wish(context.Context, string) (*fleet.Wish, error)                     { return &fleet.Wish{}, nil }
func (drain) DeviceRollouts(context.Context, string) ([]fleet.Rollout, error)       { return nil, nil }
func (drain) InsertReports(context.Context, []fleet.Report) error                   { return nil }
func (drain) InsertSamples(context.Context, []fleet.Sample) error                   { return nil }
func (drain) InsertEvents(context.Context, []fleet.Event) error                     { return nil }
func (drain) Acked(context.Context, string, uint64) ([]wire.Ack, error)             { return nil, nil }
func (drain) AddAudit(context.Context, fleet.Audit) error                           { return nil }
func (drain) Lockboxes(context.Context, string) ([]fleet.Lockbox, error)            { return nil, nil }
func (drain) CountRestored(context.Context, string, wire.Kind, *wire.Batch) error {
	return nil
}
func (drain) SetAcked(context.Context, string, wire.Ack) error { return nil }

// FuzzRecords gives every kind of record arbitrary payloads.
func FuzzRecords(f *testing.F) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		f.Fatal(err)
	}
	env, err := wire.Sign(key, wire.ReportType, &wire.Report{Device: "meter-1", Epoch: 1, Counter: 1})
	if err != nil {
		f.Fatal(err)
	}
	for n, msg := range []any{env, &wire.Sample{Seconds: 60}, &wire.Event{Type: "x"}} {
		b, err := wire.Encode(msg)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(n), b)
		f.Add(uint8(n), b[:len(b)/2])
	}
	in := &Ingest{Store: drain{key: spki}, Wake: func() {}, Now: time.Now, Log: slog.New(slog.DiscardHandler)}
	kinds := []wire.Kind{wire.KindReport, wire.KindSample, wire.KindEvent}
	f.Fuzz(func(t *testing.T, kind uint8, payload []byte) {
		k := kinds[int(kind)%len(kinds)]
		b := &wire.Batch{Records: []wire.Record{{Epoch: 1, Sequence: 1, Payload: payload}}}
		ack, err := in.Records(context.Background(), "meter-1", k, b)
		if want := (wire.Ack{Kind: k, Epoch: 1, Sequence: 1}); err != nil || ack != want {
			t.Fatalf("a payload keeps back what is behind it: %+v, %v", ack, err)
		}
	})
}
