package wire

import (
	"crypto"
	"crypto/ecdsa"
	"errors"
	"fmt"
)

// CaptureType is the payload type of signed CaptureOrders.
const CaptureType = "application/vnd.dunlin.capture.v1+cbor"

// CaptureOrders are all captures that one device is asked for. It is the payload of
// an Envelope that a CA has signed which the device trusts: whoever holds the
// server's other keys, or the broker alone, cannot have inputs leave a device.
type CaptureOrders struct {
	Device string         `cbor:"1,keyasint"`
	Number int64          `cbor:"2,keyasint"` // rises with every order of the device
	Orders []CaptureOrder `cbor:"3,keyasint,omitempty"`
}

// CaptureOrder asks for inputs of one model.
type CaptureOrder struct {
	ID      string `cbor:"1,keyasint"`
	Model   string `cbor:"2,keyasint"`
	Where   string `cbor:"3,keyasint"`           // as shared/where reads it
	Max     int64  `cbor:"4,keyasint"`           // samples of one device
	Bytes   int64  `cbor:"5,keyasint"`           // of inputs of one device
	Expires int64  `cbor:"6,keyasint"`           // Unix; nothing is kept from then on
	Stopped bool   `cbor:"7,keyasint,omitempty"` // nothing more is kept; what is kept may still be sent
}

// Bounds of captures.
const (
	MaxCaptureOrders = 8
	MaxCaptureWhere  = 512      // bytes
	MaxCapturePart   = 64 << 10 // bytes of inputs in one record
	MaxCaptureBytes  = 16 << 20 // bytes of the inputs of one sample
	maxCaptureID     = 64
	maxCaptureModel  = 128
	maxCaptureText   = 256
	maxCaptureTensor = 16 << 10
	captureSample    = 16
)

// Check bounds the list; whether a condition is one, its reader finds out.
func (o *CaptureOrders) Check() error {
	if !ValidDevice(o.Device) || o.Number < 1 || len(o.Orders) > MaxCaptureOrders {
		return fmt.Errorf("capture orders: a device id, a number from 1 and at most %d orders wanted", MaxCaptureOrders)
	}
	for _, x := range o.Orders {
		switch {
		case x.ID == "" || len(x.ID) > maxCaptureID || x.Model == "" || len(x.Model) > maxCaptureModel:
			return errors.New("capture order: an id and a model wanted")
		case x.Where == "" || len(x.Where) > MaxCaptureWhere:
			return fmt.Errorf("capture order: a condition of at most %d bytes wanted", MaxCaptureWhere)
		case x.Max < 1 || x.Bytes < 1 || x.Expires < 1:
			return errors.New("capture order: bounds and an end wanted")
		}
	}
	return nil
}

// SignCaptureOrders signs with the key of a CA that the device trusts.
func SignCaptureOrders(ca crypto.Signer, o *CaptureOrders) (*Envelope, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	return Sign(ca, CaptureType, o)
}

// OpenCaptureOrders verifies orders by any of these CAs' keys.
func (e *Envelope) OpenCaptureOrders(keys []*ecdsa.PublicKey) (*CaptureOrders, error) {
	err := fmt.Errorf("open %s: %w", CaptureType, ErrSignature)
	for _, k := range keys {
		o := &CaptureOrders{}
		if err = e.Open(k, CaptureType, o); err == nil {
			return o, nil
		}
		if !errors.Is(err, ErrSignature) {
			return nil, err
		}
	}
	return nil, err
}

// CaptureMark says which orders a device holds: the Mark of their list alone.
func CaptureMark(orders []CaptureOrder) ([]byte, error) {
	b, err := Encode(&CaptureOrders{Orders: orders})
	return Mark(b), err
}

// CaptureHeld is what a device says of captures. A device that says nothing knows
// none.
type CaptureHeld struct {
	Number  int64  `cbor:"1,keyasint,omitempty"`
	Mark    []byte `cbor:"2,keyasint,omitempty"` // of the orders held
	Allowed bool   `cbor:"3,keyasint,omitempty"` // by the device's owner
	Kept    uint64 `cbor:"4,keyasint,omitempty"` // samples since the start
	Dropped uint64 `cbor:"5,keyasint,omitempty"` // that matched and could not be kept, since the start
}

// Check bounds what is kept.
func (h *CaptureHeld) Check() error {
	if h.Number < 0 || len(h.Mark) > signpostMark {
		return errors.New("capture held: a number and a mark of 8 bytes wanted")
	}
	return nil
}

// Captured is a piece of a sample: the payload of a record of kind capture. A sample
// is its inputs one behind the other, cut into Parts. A record without Parts brings
// only what was said of a sample later.
type Captured struct {
	Capture  string          `cbor:"1,keyasint"`
	Sample   []byte          `cbor:"2,keyasint"` // 16 bytes, of the request's id
	Unix     int64           `cbor:"3,keyasint"`
	Path     string          `cbor:"4,keyasint,omitempty"` // release that answered
	Answered string          `cbor:"5,keyasint,omitempty"` // class by name or index; empty: none
	Score    float64         `cbor:"6,keyasint,omitempty"`
	Feedback string          `cbor:"7,keyasint,omitempty"` // "right", "wrong"; empty: nothing was said
	Label    string          `cbor:"8,keyasint,omitempty"` // class that was right, by name or index
	Inputs   []CapturedInput `cbor:"9,keyasint,omitempty"`
	Digest   []byte          `cbor:"10,keyasint,omitempty"` // SHA-256 of all parts
	Part     uint32          `cbor:"11,keyasint,omitempty"` // from 0
	Parts    uint32          `cbor:"12,keyasint,omitempty"`
	Bytes    []byte          `cbor:"13,keyasint,omitempty"`
	Redacted bool            `cbor:"14,keyasint,omitempty"` // by the device's own program
}

// CapturedInput is one input of a sample.
type CapturedInput struct {
	Tensor []byte `cbor:"1,keyasint"`           // the contract's description, JSON
	Shape  []int  `cbor:"2,keyasint,omitempty"` // as it was
	Size   int64  `cbor:"3,keyasint"`           // bytes
	// Encoding is that of a picture as it came, "jpeg" or "png", before it was made fit
	// for the model; empty: the bytes are the tensor's.
	Encoding string `cbor:"4,keyasint,omitempty"`
}

// Size is that of all inputs together.
func (c *Captured) Size() int64 {
	var n int64
	for _, in := range c.Inputs {
		n += in.Size
	}
	return n
}

// Check refuses what cannot be put together.
func (c *Captured) Check() error {
	for _, s := range []string{c.Path, c.Answered, c.Feedback, c.Label} {
		if len(s) > maxCaptureText {
			return fmt.Errorf("captured: a text of more than %d bytes", maxCaptureText)
		}
	}
	if c.Capture == "" || len(c.Capture) > maxCaptureID || len(c.Sample) != captureSample || c.Unix < 0 {
		return errors.New("captured: a capture and a sample of 16 bytes wanted")
	}
	if c.Feedback != "" && c.Feedback != "right" && c.Feedback != "wrong" {
		return errors.New("captured: feedback is right or wrong")
	}
	if c.Parts == 0 {
		if len(c.Inputs)+len(c.Bytes)+len(c.Digest) > 0 || c.Part > 0 {
			return errors.New("captured: bytes of no part")
		}
		return nil
	}
	if len(c.Inputs) == 0 || len(c.Inputs) > MaxSampleInputs || len(c.Digest) != 32 {
		return errors.New("captured: inputs and a digest wanted")
	}
	var size int64
	for _, in := range c.Inputs {
		if in.Size < 1 || in.Size > MaxCaptureBytes || len(in.Tensor) > maxCaptureTensor || len(in.Shape) > 8 || in.Encoding != "" && in.Encoding != "jpeg" && in.Encoding != "png" {
			return errors.New("captured: an input out of bounds")
		}
		size += in.Size
	}
	// Every part but the last is full.
	if size > MaxCaptureBytes || int64(c.Parts) != (size+MaxCapturePart-1)/MaxCapturePart || c.Part >= c.Parts {
		return errors.New("captured: parts that do not fit the inputs")
	}
	if want := min(size-int64(c.Part)*MaxCapturePart, MaxCapturePart); int64(len(c.Bytes)) != want {
		return fmt.Errorf("captured: %d bytes in part %d, %d wanted", len(c.Bytes), c.Part, want)
	}
	return nil
}
