package wire

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// BlockHeader precedes the bytes of a block. Layout, little endian, 48 bytes:
//
//	0  4  magic "DLB1"
//	4  4  request
//	8  16 first half of the blob's SHA-256
//	24 8  offset
//	32 4  length
//	36 4  CRC-32C of the bytes
//	40 8  length of the whole blob
//
// The checksum finds accidents early; only the blob's SHA-256 protects.
type BlockHeader struct {
	Request uint32
	Digest  [16]byte
	Offset  int64
	Length  int
	Total   int64
}

// BlockHeaderSize is the length of the header in bytes.
const BlockHeaderSize = 48

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// EncodeBlock returns header and bytes as one message.
func EncodeBlock(h BlockHeader, data []byte) []byte {
	b := make([]byte, BlockHeaderSize, BlockHeaderSize+len(data))
	copy(b, "DLB1")
	binary.LittleEndian.PutUint32(b[4:], h.Request)
	copy(b[8:24], h.Digest[:])
	binary.LittleEndian.PutUint64(b[24:], uint64(h.Offset))
	binary.LittleEndian.PutUint32(b[32:], uint32(len(data)))
	binary.LittleEndian.PutUint32(b[36:], crc32.Checksum(data, castagnoli))
	binary.LittleEndian.PutUint64(b[40:], uint64(h.Total))
	return append(b, data...)
}

// DecodeBlock checks header, bounds and checksum. The returned bytes alias b.
func DecodeBlock(b []byte) (BlockHeader, []byte, error) {
	var h BlockHeader
	if len(b) < BlockHeaderSize || len(b) > BlockHeaderSize+MaxBlock || string(b[:4]) != "DLB1" {
		return h, nil, fmt.Errorf("block of %d bytes: %w", len(b), ErrMalformed)
	}
	h.Request = binary.LittleEndian.Uint32(b[4:])
	copy(h.Digest[:], b[8:24])
	h.Offset = int64(binary.LittleEndian.Uint64(b[24:]))
	h.Length = int(binary.LittleEndian.Uint32(b[32:]))
	h.Total = int64(binary.LittleEndian.Uint64(b[40:]))
	data := b[BlockHeaderSize:]
	if h.Length != len(data) || h.Offset < 0 || h.Total < 0 || h.Offset > h.Total-int64(h.Length) {
		return h, nil, fmt.Errorf("block at %d of %d bytes: %w", h.Offset, h.Total, ErrMalformed)
	}
	if crc32.Checksum(data, castagnoli) != binary.LittleEndian.Uint32(b[36:]) {
		return h, nil, fmt.Errorf("block at %d: checksum: %w", h.Offset, ErrMalformed)
	}
	return h, data, nil
}
