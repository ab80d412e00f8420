package fleet

import "time"

// Lockbox is one export for one device: what makes its receipt believable.
type Lockbox struct {
	ID      string // lbx_…, of the whole export
	Device  string
	Nonce   []byte // 16 bytes, signed into the device's metadata
	Created time.Time
	Expires time.Time // of the metadata in it
}

// LockboxHome is how long after it expired a lockbox's receipts prove something.
const LockboxHome = 90 * 24 * time.Hour

// LockboxExport is everything that is written into a lockbox. Names are of files
// below the folders of the format, see wire.LockboxDir.
type LockboxExport struct {
	ID       string        `json:"id"`
	Expires  time.Time     `json:"expires"`
	Channels []LockboxFile `json:"channels"`
	Devices  []LockboxFile `json:"devices"`
	Blobs    []LockboxBlob `json:"blobs"` // that the devices lack by what they last reported
}

// LockboxFile is the signed metadata of a channel or of a device.
type LockboxFile struct {
	Of    string `json:"of"` // channel or device, for people
	Name  string `json:"name"`
	Bytes []byte `json:"bytes"`
}

// LockboxBlob is a blob to be fetched.
type LockboxBlob struct {
	Digest string `json:"digest"`
	Size   int64  `json:"size"`
}

// LockboxRequest is what an operator asks for.
type LockboxRequest struct {
	Selector string
	Channel  string        // empty: every channel
	Valid    time.Duration // 0: 30 days; at most 90
	Full     bool          // with every blob, whatever the devices have
	By       string
}

// LockboxReceipt is what a receipt that came home brought.
type LockboxReceipt struct {
	Device  string `json:"device"`
	Lockbox string `json:"lockbox,omitempty"`
	Proof   string `json:"proof,omitempty"` // of the device's newest report, afterwards
	Reports int    `json:"reports"`         // records in it, new or not
	Samples int    `json:"samples"`
	Events  int    `json:"events"`
}
