package wire_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"maps"
	"slices"
	"testing"

	"github.com/dunlin-edge/dunlin/shared/wire"
)

// FuzzDecode reads bytes as every message in turn: no panic, and what is
// accepted means the same after it was sent on.
func FuzzDecode(f *testing.F) {
	names := slices.Sorted(maps.Keys(messages))
	for i, name := range names {
		b, err := wire.Encode(messages[name])
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(i), b)
	}
	f.Add(uint8(0), []byte{0xbf, 0xff})
	f.Add(uint8(1), []byte{0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	f.Add(uint8(2), bytes.Repeat([]byte{0x81}, 1000))
	f.Fuzz(func(t *testing.T, i uint8, b []byte) {
		like := messages[names[int(i)%len(names)]]
		msg := fresh(like)
		if err := wire.Decode(b, msg); err != nil {
			if !errors.Is(err, wire.ErrMalformed) {
				t.Fatal(err)
			}
			return
		}
		once, err := wire.Encode(msg)
		if err != nil {
			t.Fatal(err)
		}
		again := fresh(like)
		if err := wire.Decode(once, again); err != nil {
			t.Fatalf("%T was accepted and is refused when it is sent on: %v", msg, err)
		}
		if twice, err := wire.Encode(again); err != nil || !bytes.Equal(once, twice) {
			t.Fatalf("%x became %x, %v", once, twice, err)
		}
	})
}

func FuzzDecodeBlock(f *testing.F) {
	f.Add(wire.EncodeBlock(blockHeader, []byte("hello")))
	f.Add(wire.EncodeBlock(wire.BlockHeader{}, nil))
	f.Add([]byte("DLB1"))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, data, err := wire.DecodeBlock(b)
		if err != nil {
			return
		}
		if !bytes.Equal(wire.EncodeBlock(h, data), b) {
			t.Fatal("a block is accepted that is not encoded like this")
		}
	})
}

func FuzzParseEnrolToken(f *testing.F) {
	f.Add(messages["enrol-token"].(*wire.EnrolToken).String())
	f.Add("dunlin1.")
	f.Add("dunlin1.oA")
	f.Fuzz(func(t *testing.T, s string) {
		token, err := wire.ParseEnrolToken(s)
		if err != nil {
			return
		}
		if _, err := wire.ParseEnrolToken(token.String()); err != nil {
			t.Fatal(err)
		}
	})
}

func FuzzParseTopic(f *testing.F) {
	f.Add(wire.UpTopic("meter-1", wire.KindHello))
	f.Add(wire.DownTopic("meter-1", wire.KindAck))
	f.Fuzz(func(t *testing.T, s string) {
		device, up, k, err := wire.ParseTopic(s)
		if err != nil {
			return
		}
		again := wire.DownTopic(device, k)
		if up {
			again = wire.UpTopic(device, k)
		}
		if again != s {
			t.Fatalf("%q is read as %q", s, again)
		}
	})
}

// FuzzReceipt reads bytes as a receipt and as a stick's metadata: no panic, and no
// signature of nobody is believed.
func FuzzReceipt(f *testing.F) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	env, err := wire.Sign(key, wire.ReceiptType, receipt)
	if err != nil {
		f.Fatal(err)
	}
	whole, err := wire.Encode(env)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add(whole[:len(whole)/2])
	f.Add([]byte{0xa1, 1, 0x80})
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := wire.OpenReceipt(b, &other.PublicKey); err == nil {
			t.Fatal("a receipt of another key is believed")
		}
		if _, err := wire.OpenReceipt(b, &key.PublicKey); err == nil && !bytes.Equal(b, whole) {
			if r, err := wire.PeekReceipt(b); err != nil || r.Device != receipt.Device {
				t.Fatalf("a changed receipt is believed: %+v, %v", r, err)
			}
		}
		if s, err := wire.DecodeMetaSet(b); err == nil && s.Check() != nil {
			t.Fatal("metadata in pieces is taken")
		}
	})
}

var receipt = &wire.Receipt{
	Device: "meter-1", Lockbox: "lbx_1", Hello: *messages["hello"].(*wire.Hello), Report: &wire.Record{Epoch: 7, Sequence: 9, Payload: []byte{1}},
	Queued: []wire.ReceiptBatch{{Kind: wire.KindSample, Batch: *messages["batch"].(*wire.Batch)}},
}
