package catalog

import (
	"bytes"
	"context"
	"encoding/json"

	"github.com/dunlin-edge/dunlin/fleet"
)

// JSON is a catalog that takes its documents as JSON, as the API gets them.
type JSON struct{ *Service }

// Install is Service.Install of a Ceremony.
func (j JSON) Install(ctx context.Context, body []byte, actor string) error {
	var x Ceremony
	if err := strict("ceremony", body, &x); err != nil {
		return err
	}
	return j.Service.Install(ctx, &x, actor)
}

// Amend is Service.Amend of an Amendment.
func (j JSON) Amend(ctx context.Context, body []byte, actor string) error {
	var x Amendment
	if err := strict("amendment", body, &x); err != nil {
		return err
	}
	return j.Service.Amend(ctx, &x, actor)
}

// Metadata is everything that publishers and holders build upon: the newest of every
// role of the catalog, and the director's root.
func (j JSON) Metadata(ctx context.Context) ([]fleet.MetaRow, error) {
	rows, err := j.Service.Metadata(ctx)
	if err != nil {
		return nil, err
	}
	root, err := j.DirectorRoot(ctx)
	return append(rows, root), err
}

func strict(what string, body []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fleet.ErrBadRequest.With("%s: %v", what, err)
	}
	return nil
}
