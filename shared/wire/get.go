package wire

import "errors"

// Get asks for metadata or for blocks of a blob: exactly one of Refresh and
// Blob is set.
type Get struct {
	Request uint32   `cbor:"1,keyasint"` // echoed in every reply
	Refresh *Held    `cbor:"2,keyasint,omitempty"`
	Blob    *BlobGet `cbor:"3,keyasint,omitempty"`
}

// BlobGet asks for ranges of one blob, each answered by one Block.
type BlobGet struct {
	Digest [32]byte `cbor:"1,keyasint"` // SHA-256
	Ranges []Range  `cbor:"2,keyasint"` // at most MaxRanges
}

// Limits of block transfer in bytes and count.
const (
	MinBlock  = 16 << 10
	MaxBlock  = 120 << 10
	MaxRanges = 8
)

// Range is Length bytes from Offset.
type Range struct {
	Offset int64 `cbor:"1,keyasint"`
	Length int64 `cbor:"2,keyasint"`
}

// Check refuses a request for nothing, for both, or beyond the limits.
func (g *Get) Check() error {
	if (g.Refresh == nil) == (g.Blob == nil) {
		return errors.New("get: exactly one of refresh and blob wanted")
	}
	if g.Blob == nil {
		return nil
	}
	if n := len(g.Blob.Ranges); n == 0 || n > MaxRanges {
		return errors.New("get: 1 to 8 ranges wanted")
	}
	for _, r := range g.Blob.Ranges {
		if r.Offset < 0 || r.Length <= 0 || r.Length > MaxBlock {
			return errors.New("get: range out of bounds")
		}
	}
	return nil
}

// Names of the two repositories in MetaFile.Repo.
const (
	RepoCatalog  = "catalog"
	RepoDirector = "director"
)

// Meta is a part of the reply to a refresh: all files newer than those held,
// roots first, then timestamp, snapshot, targets, delegated roles. A long file
// comes in pieces. More is false in the last part.
type Meta struct {
	Request uint32     `cbor:"1,keyasint"`
	Files   []MetaFile `cbor:"2,keyasint,omitempty"`
	More    bool       `cbor:"3,keyasint,omitempty"`
	Error   string     `cbor:"4,keyasint,omitempty"` // code, nothing else is set then
}

// MetaFile is one metadata file or a piece of it.
type MetaFile struct {
	Repo    string `cbor:"1,keyasint"`
	Role    string `cbor:"2,keyasint"` // "root", "timestamp", "snapshot", "targets" or a delegated role
	Version int64  `cbor:"3,keyasint"`
	Offset  int64  `cbor:"4,keyasint,omitempty"`
	Total   int64  `cbor:"5,keyasint"` // bytes of the whole file
	Bytes   []byte `cbor:"6,keyasint"`
}

// Busy asks the device to repeat a request later.
type Busy struct {
	Request uint32 `cbor:"1,keyasint"`
	AfterMS int64  `cbor:"2,keyasint"`           // milliseconds
	Code    string `cbor:"3,keyasint,omitempty"` // why, when repeating will not help: "blob.not_assigned", "blob.unknown"
}
