package link

import (
	"context"
	"io"

	"github.com/dunlin-edge/dunlin/shared/trust"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

// Source is the link as a source of metadata and blobs.
type Source struct{ Link *Link }

// Refresh implements trust.Source.
func (s Source) Refresh(ctx context.Context, h trust.Held) ([]trust.File, error) {
	files, err := s.Link.Metadata(ctx, Held(h))
	if err != nil {
		return nil, err
	}
	out := make([]trust.File, len(files))
	for i, f := range files {
		out[i] = trust.File{Repo: f.Repo, Role: f.Role, Version: f.Version, Bytes: f.Bytes}
	}
	return out, nil
}

// Held is what hello and refresh say of what is held.
func Held(h trust.Held) *wire.Held {
	return &wire.Held{Director: wire.Versions(h.Director), Catalog: wire.Versions(h.Catalog), Roles: h.Roles}
}

// Fetch implements trust.Source.
func (s Source) Fetch(ctx context.Context, b trust.Blob, missing []trust.Range, w io.WriterAt) error {
	ranges := make([]Range, len(missing))
	for i, r := range missing {
		ranges[i] = Range(r)
	}
	return s.Link.Pull(ctx, b.Digest, b.Length, ranges, w)
}
