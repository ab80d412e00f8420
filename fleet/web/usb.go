package web

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/dunlin-edge/dunlin/fleet"
)

// Lockboxes are sticks for devices without a network.
type Lockboxes interface {
	Export(ctx context.Context, r fleet.LockboxRequest) (*fleet.LockboxExport, error)
	// Receipt takes in what a device sent home.
	Receipt(ctx context.Context, b []byte) (*fleet.LockboxReceipt, error)
}

func (a *api) usbRoutes() {
	route(a, post("/v1/usb/exports", "export-usb", "Sign a lockbox for devices without a network"), fleet.RoleOperator, a.exportUSB)
	a.raw(http.MethodPost, "/v1/usb/receipts", fleet.RoleOperator, describe("import-usb-receipt", "Take in a device's receipt", "200", "application/json"), a.importReceipt)
	a.raw(http.MethodGet, "/v1/blobs/{digest}", fleet.RoleOperator, describe("get-blob", "Download a blob", "200", "application/octet-stream", "digest"), a.getBlob)
}

func (a *api) exportUSB(ctx context.Context, in *struct {
	Body struct {
		Selector string         `json:"selector,omitempty" maxLength:"1024"`
		Channel  string         `json:"channel,omitempty"`
		Valid    fleet.Duration `json:"valid,omitempty" doc:"up to 90 days; 30 days when left out"`
		Full     bool           `json:"full,omitempty" doc:"every blob, also those that the devices have"`
	}
}) (*one[fleet.LockboxExport], error) {
	x, err := a.Lockboxes.Export(ctx, fleet.LockboxRequest{Selector: in.Body.Selector, Channel: in.Body.Channel, Valid: time.Duration(in.Body.Valid), Full: in.Body.Full, By: actor(ctx)})
	if err != nil {
		return nil, err
	}
	return &one[fleet.LockboxExport]{*x}, nil
}

func (a *api) importReceipt(w http.ResponseWriter, r *http.Request) error {
	b, err := body(w, r)
	if err != nil {
		return err
	}
	out, err := a.Lockboxes.Receipt(r.Context(), b)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(out)
}

func (a *api) getBlob(w http.ResponseWriter, r *http.Request) error {
	digest := r.PathValue("digest")
	size, ok, err := a.Blobs.Has(digest)
	if err != nil {
		return err
	}
	if !ok {
		return fleet.ErrBlobUnknown
	}
	f, err := a.Blobs.Open(digest)
	if err != nil {
		return err
	}
	defer f.Close()
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
	io.Copy(w, f) // a client that went needs no answer
	return nil
}
