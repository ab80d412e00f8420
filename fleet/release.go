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

// ReleaseFilter chooses releases; zero values do not restrict.
type ReleaseFilter struct {
	Channel, Model, Kind string
}
