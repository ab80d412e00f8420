package fleet

import (
	"time"

	"github.com/dunlin-edge/dunlin/shared/bundle"
)

// Release is a bundle published in a channel, as the catalog signs it.
type Release struct {
	ID      string // rel_…
	Channel string
	bundle.Release
	Digest    string // of the manifest, "sha256:…"
	Length    int64  // of the manifest, bytes
	Published time.Time
	Blobs     []string // digests of every blob, the manifest's first
}

// Path is the release's name in the catalog.
func (r *Release) Path() string { return bundle.TargetPath(r.Channel, r.Model, r.Version) }

// Fits tells whether the release's hardware selector matches what a device told
// of itself. One that has told nothing fits as far as is known.
func (r *Release) Fits(d *Device) bool {
	if r.Hardware == "" || len(d.Facts) == 0 {
		return true
	}
	sel, err := bundle.ParseSelector(r.Hardware)
	return err == nil && sel.Matches(d.Facts)
}

// ReleaseFilter chooses releases; zero values do not restrict.
type ReleaseFilter struct {
	Channel, Model, Kind string
}
