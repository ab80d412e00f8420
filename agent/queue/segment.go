package queue

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"path/filepath"

	"github.com/dunlin-edge/dunlin/shared/durable"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

// A segment is one append-only file, ORDER.seg with ORDER as 16 hex digits:
//
//	0  4  magic "DLQ1"
//	4  8  order, little endian
//	12 8  epoch
//	20 8  sequence of the first record
//	28 4  CRC-32C of the bytes before
//
// then records: length (4), CRC-32C of length and payload (4), payload.
type segment struct {
	path   string
	order  uint64
	epoch  uint64
	first  uint64 // sequence of the first record
	count  uint64
	size   int64
	file   durable.File // open for appending; nil in older segments
	broken bool         // an append failed: nothing more is written here
}

const (
	segmentSuffix = ".seg"
	headerSize    = 32
	frameSize     = 8
	// maxSegment bounds what is read back; a queue never writes one this long.
	maxSegment = 1 << 30
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func createSegment(fsys durable.FS, dir string, order, epoch, first uint64) (*segment, error) {
	h := make([]byte, headerSize)
	copy(h, "DLQ1")
	binary.LittleEndian.PutUint64(h[4:], order)
	binary.LittleEndian.PutUint64(h[12:], epoch)
	binary.LittleEndian.PutUint64(h[20:], first)
	binary.LittleEndian.PutUint32(h[28:], crc32.Checksum(h[:28], castagnoli))
	s := &segment{path: filepath.Join(dir, fmt.Sprintf("%016x%s", order, segmentSuffix)), order: order, epoch: epoch, first: first, size: headerSize}
	if err := durable.WriteFile(fsys, "queue.segment", s.path, h, 0o600); err != nil {
		return nil, err
	}
	return s, nil
}

// next is the sequence that the next record gets.
func (s *segment) next() uint64 { return s.first + s.count }

// after counts the records that m does not cover.
func (s *segment) after(m mark) uint64 {
	if s.epoch != m.epoch || m.sequence < s.first {
		return s.count
	}
	return s.count - min(s.count, m.sequence-s.first+1)
}

// append writes one frame and syncs it. After an error the segment takes no more:
// what a failed sync left in the file is unknown until it is opened again.
func (s *segment) append(fsys durable.FS, payload []byte) (uint64, error) {
	if s.file == nil {
		f, err := fsys.OpenFile("queue.append", s.path, durable.Append, 0)
		if err != nil {
			return 0, err
		}
		s.file = f
	}
	b := make([]byte, frameSize, frameSize+len(payload))
	binary.LittleEndian.PutUint32(b, uint32(len(payload)))
	b = append(b, payload...)
	binary.LittleEndian.PutUint32(b[4:], frameSum(b))
	if _, err := s.file.Write(b); err != nil {
		s.broken = true
		return 0, err
	}
	if err := s.file.Sync(); err != nil {
		s.broken = true
		return 0, err
	}
	seq := s.next()
	s.count++
	s.size += int64(len(b))
	return seq, nil
}

// frameSum covers length and payload.
func frameSum(frame []byte) uint32 {
	return crc32.Update(crc32.Checksum(frame[:4], castagnoli), castagnoli, frame[frameSize:])
}

// openSegment reads a segment's header and counts its records. A tail that is
// not a whole record is cut off, so that the segment can be appended to; lost is
// the number of records that damage before the tail may have cost, at least one.
// A segment whose header is not readable is removed.
func openSegment(fsys durable.FS, path string) (s *segment, lost uint64, err error) {
	b, err := durable.ReadFile(fsys, path, maxSegment)
	if err != nil {
		return nil, 0, err
	}
	s, err = parseHeader(b)
	if err != nil {
		return nil, 1, durable.Remove(fsys, "queue.damaged", path)
	}
	s.path = path
	end, damaged := scan(b, func([]byte) { s.count++ })
	s.size = int64(end)
	if end == len(b) {
		return s, 0, nil
	}
	if damaged {
		lost = 1
	}
	f, err := fsys.OpenFile("queue.tail", path, durable.ReadWrite, 0)
	if err != nil {
		return nil, 0, err
	}
	if err := errors.Join(f.Truncate(int64(end)), f.Sync(), f.Close()); err != nil {
		return nil, 0, err
	}
	return s, lost, nil
}

var errHeader = errors.New("segment header is not valid")

func parseHeader(b []byte) (*segment, error) {
	if len(b) < headerSize || string(b[:4]) != "DLQ1" || crc32.Checksum(b[:28], castagnoli) != binary.LittleEndian.Uint32(b[28:]) {
		return nil, errHeader
	}
	return &segment{order: uint64At(b, 4), epoch: uint64At(b, 12), first: uint64At(b, 20), size: headerSize}, nil
}

// scan calls each for every whole record and returns where the last one ends.
// damaged tells that what follows is not a torn append but a record that was
// once whole.
func scan(b []byte, each func(payload []byte)) (end int, damaged bool) {
	at := headerSize
	for len(b)-at >= frameSize {
		n := int(binary.LittleEndian.Uint32(b[at:]))
		if n == 0 || n > MaxRecord {
			return at, true
		}
		if n > len(b)-at-frameSize {
			return at, false
		}
		frame := b[at : at+frameSize+n]
		if frameSum(frame) != binary.LittleEndian.Uint32(frame[4:]) {
			return at, at+len(frame) < len(b)
		}
		each(frame[frameSize:])
		at += len(frame)
	}
	return at, false
}

// errDamaged says that a record cannot be read back, though it was written whole.
var errDamaged = errors.New("segment is damaged")

// read returns records after m, at least one; errDamaged when the first of them is
// not there any more.
func (s *segment) read(fsys durable.FS, m mark, max, maxBytes int) ([]wire.Record, error) {
	b, err := durable.ReadFile(fsys, s.path, maxSegment)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errDamaged
	}
	if err != nil {
		return nil, err
	}
	if _, err := parseHeader(b); err != nil {
		return nil, errDamaged
	}
	skip := s.count - s.after(m)
	var out []wire.Record
	var i uint64
	bytes := 0
	scan(b, func(payload []byte) {
		if i >= skip && i < s.count && len(out) < max && (len(out) == 0 || bytes+len(payload) <= maxBytes) && uint64(len(out)) == i-skip {
			out = append(out, wire.Record{Epoch: s.epoch, Sequence: s.first + i, Payload: payload})
			bytes += len(payload)
		}
		i++
	})
	if len(out) == 0 {
		return nil, errDamaged
	}
	return out, nil
}

func (s *segment) close() error {
	if s.file == nil {
		return nil
	}
	err := s.file.Close()
	s.file = nil
	return err
}
