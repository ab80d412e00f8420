package wire

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
)

// A lockbox is a folder that carries signed updates to devices without a network
// and their signed receipts back; docs/usb.md draws it. Every name in it is fixed
// or a hash: nothing that a device reads there becomes part of a path.

// LockboxFormat is what the file LockboxDir/format holds.
const LockboxFormat = "dunlin lockbox 1\n"

// Folders of a lockbox, below LockboxDir.
const (
	LockboxDir      = "dunlin"
	LockboxMark     = "format"   // holds LockboxFormat
	LockboxChannels = "channels" // a MetaSet each: both root chains and the catalog
	LockboxDevices  = "devices"  // a MetaSet each: what the director signed
	LockboxBlobs    = "blobs"    // by SHA-256, hex
	LockboxReceipts = "receipts" // an Envelope of ReceiptType each
	LockboxRequests = "requests" // an EnrolRequest each, JSON
	LockboxAnswers  = "answers"  // an EnrolReply each, JSON
)

// LockboxName is the name of a device's or a channel's file: of it and of the
// fleet, which is the SHA-256 of the director's first root. So a stick of another
// fleet has nothing under a device's name.
func LockboxName(fleet [32]byte, of string) string {
	h := sha256.New()
	h.Write([]byte(LockboxFormat))
	h.Write(fleet[:])
	h.Write([]byte(of))
	return hex.EncodeToString(h.Sum(nil))
}

// MetaSet is a file of signed metadata in a lockbox.
type MetaSet struct {
	Files []MetaFile `cbor:"1,keyasint"`
}

// Limits of a lockbox's files in bytes.
const (
	MaxMetaSet = 16 << 20
	MaxReceipt = 4 << 20
)

const maxMetaFiles = 600 // both chains of roots, and the rest

// Check wants whole files.
func (s *MetaSet) Check() error {
	if len(s.Files) == 0 || len(s.Files) > maxMetaFiles {
		return errors.New("metadata: 1 to 600 files wanted")
	}
	for _, f := range s.Files {
		if f.Offset != 0 || f.Total != int64(len(f.Bytes)) {
			return errors.New("metadata: whole files wanted")
		}
	}
	return nil
}

// DecodeMetaSet reads a file of at most MaxMetaSet bytes.
func DecodeMetaSet(b []byte) (*MetaSet, error) {
	s := &MetaSet{}
	return s, decode(b, s, MaxMetaSet)
}

// LockboxNote is what the director signs into a device's metadata of a lockbox,
// as custom.lockbox.
type LockboxNote struct {
	ID    string       `json:"id"`    // lbx_…
	Nonce []byte       `json:"nonce"` // 16 bytes, to be put in the next reports
	Share int64        `json:"share"` // bytes that a receipt may have
	Acked []LockboxAck `json:"acked,omitempty"`
}

// LockboxAck is an Ack in JSON, where a number of 64 bits would not survive.
type LockboxAck struct {
	Kind     Kind   `json:"kind"`
	Epoch    string `json:"epoch"` // hex
	Sequence uint64 `json:"sequence"`
}

// ReceiptType is the payload type of a signed Receipt.
const ReceiptType = "application/vnd.dunlin.receipt.v1+cbor"

// Receipt is what a device sends home in a lockbox: what it would say in a
// session, and what waits in its queues. It is the payload of an Envelope.
type Receipt struct {
	Device  string         `cbor:"1,keyasint"`
	Lockbox string         `cbor:"2,keyasint"` // id of the newest that was taken in; empty: none
	Hello   Hello          `cbor:"3,keyasint"`
	Report  *Record        `cbor:"4,keyasint,omitempty"` // the newest statement, whatever waits before it
	Queued  []ReceiptBatch `cbor:"5,keyasint,omitempty"` // of each kind, the oldest first
}

// ReceiptBatch is a Batch of a kind.
type ReceiptBatch struct {
	Kind  Kind  `cbor:"1,keyasint"`
	Batch Batch `cbor:"2,keyasint"`
}

// Check refuses a receipt that no device writes.
func (r *Receipt) Check() error {
	if !ValidDevice(r.Device) || len(r.Lockbox) > 64 {
		return errors.New("receipt: a device id and a lockbox id wanted")
	}
	if r.Report != nil && (r.Report.Sequence == 0 || len(r.Report.Payload) == 0) {
		return errors.New("receipt: the report is no record")
	}
	for i := range r.Queued {
		if err := r.Queued[i].Batch.Check(); err != nil {
			return err
		}
	}
	return r.Hello.Check()
}

// PeekReceipt reads a receipt without looking at its signature, to learn whose key
// to look with.
func PeekReceipt(b []byte) (*Receipt, error) {
	_, r, err := openReceipt(b)
	return r, err
}

// OpenReceipt verifies and reads a receipt.
func OpenReceipt(b []byte, key *ecdsa.PublicKey) (*Receipt, error) {
	env, r, err := openReceipt(b)
	if err != nil {
		return nil, err
	}
	if err := env.verify(key, ReceiptType); err != nil {
		return nil, err
	}
	return r, nil
}

func openReceipt(b []byte) (*Envelope, *Receipt, error) {
	env, r := &Envelope{}, &Receipt{}
	if err := decode(b, env, MaxReceipt); err != nil {
		return nil, nil, fmt.Errorf("receipt: %w", err)
	}
	if env.Type != ReceiptType {
		return nil, nil, fmt.Errorf("receipt: an envelope of type %.64q: %w", env.Type, ErrMalformed)
	}
	if err := decode(env.Payload, r, MaxReceipt); err != nil {
		return nil, nil, fmt.Errorf("receipt: %w", err)
	}
	return env, r, nil
}
