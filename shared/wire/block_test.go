package wire_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strconv"
	"testing"

	"github.com/dunlin-edge/dunlin/shared/wire"
)

var blockHeader = wire.BlockHeader{Request: 7, Digest: [16]byte{1, 2, 15: 16}, Offset: 1 << 33, Length: 5, Total: 1<<33 + 5}

func TestBlockIsAsRecorded(t *testing.T) {
	b := wire.EncodeBlock(blockHeader, []byte("hello"))
	if want := golden(t, wire.Protocol, "block", b); !bytes.Equal(b, want) {
		t.Errorf("encoded\n%x, recorded\n%x", b, want)
	}
	h, data, err := wire.DecodeBlock(b)
	if err != nil || h != blockHeader || string(data) != "hello" {
		t.Fatalf("%+v %q %v", h, data, err)
	}
}

func TestDamagedBlocksAreRefused(t *testing.T) {
	good := wire.EncodeBlock(blockHeader, []byte("hello"))
	refuse := func(what string, b []byte) {
		t.Helper()
		if _, _, err := wire.DecodeBlock(b); !errors.Is(err, wire.ErrMalformed) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for n := range good {
		refuse("cut at "+strconv.Itoa(n), good[:n])
	}
	// Everything that says what the bytes are and where they belong; the request,
	// the digest and the total are compared by whoever asked.
	for _, i := range []int{0, 3, 24 + 7, 32, 35, 36, 39, 40 + 7, wire.BlockHeaderSize, len(good) - 1} {
		b := bytes.Clone(good)
		b[i] ^= 0x80
		refuse("bit of byte "+strconv.Itoa(i), b)
	}
	refuse("a byte behind", append(bytes.Clone(good), 0))
	refuse("too long", wire.EncodeBlock(wire.BlockHeader{Total: wire.MaxBlock + 1}, make([]byte, wire.MaxBlock+1)))
	beyond := bytes.Clone(good)
	binary.LittleEndian.PutUint64(beyond[24:], 1<<33+1)
	refuse("beyond the blob", beyond)
	wrapped := bytes.Clone(good)
	binary.LittleEndian.PutUint64(wrapped[24:], 1<<63-1)
	binary.LittleEndian.PutUint64(wrapped[40:], 1<<63-1)
	refuse("an offset that overflows", wrapped)
}
