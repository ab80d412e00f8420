package fleet

import (
	"time"

	"github.com/dunlin-edge/dunlin/shared/wire"
)

// PrefixCapture begins the id of a capture.
const PrefixCapture = "cap_"

// Bounds of captures.
const (
	MaxCaptureSamples = 100_000
	MaxCaptureMB      = 1024 // of one device
	MaxCaptureLife    = 90 * 24 * time.Hour
)

// CaptureSpec is what somebody asks for: inputs of a model from devices.
type CaptureSpec struct {
	Model       string `json:"model" minLength:"1" maxLength:"128"`
	Where       string `json:"where" minLength:"1" maxLength:"512" doc:"which answers' inputs: feedback, class, score, entropy, latency; like feedback=wrong or score<0.5"`
	Selector    string `json:"selector,omitempty" maxLength:"4096" doc:"of devices; empty: all"`
	Max         int64  `json:"max" minimum:"1" maximum:"100000" doc:"samples of all devices together"`
	MBPerDevice int64  `json:"mb_per_device" minimum:"1" maximum:"1024" doc:"of inputs, 2^20 bytes"`
	Hours       int    `json:"hours" minimum:"1" maximum:"2160" doc:"after which nothing more is kept and everything is erased"`
}

// Capture is an order for inputs and what came of it.
type Capture struct {
	ID      string
	Spec    CaptureSpec
	By      string // who made it
	Created time.Time
	Expires time.Time
	Stopped time.Time // zero: it runs
	Samples int64     // whole ones
	Bytes   int64     // of them and of those that are not whole yet
	Refused int64     // records that came beyond its bounds
}

// Order is the capture as a device is told.
func (c *Capture) Order() wire.CaptureOrder {
	return wire.CaptureOrder{ID: c.ID, Model: c.Spec.Model, Where: c.Spec.Where, Max: c.Spec.Max, Bytes: c.Spec.MBPerDevice << 20,
		Expires: c.Expires.Unix(), Stopped: !c.Stopped.IsZero() || c.Samples >= c.Spec.Max}
}

// CaptureDevice is what one device brought to a capture.
type CaptureDevice struct {
	Device  string
	Samples int64
	Bytes   int64
	Last    time.Time
}

// CapturedSample is one input with what is known of it.
type CapturedSample struct {
	Capture string
	Device  string
	Sample  string // hex
	At      time.Time
	About   wire.Captured // without bytes
	Blobs   []string      // of its parts, in order
}

// CapturePart is a part of a sample as it is stored.
type CapturePart struct {
	Device string
	Record wire.Captured
	Blob   string // digest of the part's bytes; empty: only a word about the sample
}

// Erase says whose captured inputs to erase; one of both is set.
type Erase struct {
	Device  string `json:"device,omitempty" maxLength:"64"`
	Capture string `json:"capture,omitempty" maxLength:"64"`
}

// Errors of captures.
var (
	ErrCaptureUnknown = &Error{"capture.unknown", "no such capture", "list captures with 'dunlin capture list'", 404}
	ErrCaptureInvalid = &Error{"capture.invalid", "the capture is not valid", "mend what is named; see docs/capture.md", 422}
	ErrCaptureGone    = &Error{"capture.gone", "the input is not on this server", "it came back from a backup, which holds no inputs; erase the capture with 'dunlin data erase --capture'", 410}
	ErrCaptureMany    = &Error{"capture.too_many", "as many captures as a device takes are running", "stop one with 'dunlin capture stop'", 409}
)
