package web

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

// identityRoutes are what begins, changes and ends who may be a device.
func (a *api) identityRoutes() {
	route(a, post("/v1/devices/{id}/revoke", "revoke-device", "End a device's identity and its sessions"), fleet.RoleOperator, a.revoke)
	route(a, post("/v1/devices/{id}/retire", "retire-device", "End a device for good: its identity, its wish, its part in rollouts"), fleet.RoleOperator, a.retire)
	route(a, post("/v1/devices/{id}/replace", "replace-device", "Make a token that gives a device's place to a new identity"), fleet.RoleOperator, once(a, a.replace))
	route(a, post("/v1/devices/{id}/accept", "accept-device", "Let through what of a device waits for an operator"), fleet.RoleOperator, a.accept)
	route(a, post("/v1/devices/{id}/reject", "reject-device", "Refuse a device that waits to be let in"), fleet.RoleOperator, a.reject)
	route(a, post("/v1/enrol-tokens", "create-enrol-token", "Make an enrolment token"), fleet.RoleOperator, once(a, a.createToken))
	route(a, get("/v1/enrol-tokens", "list-enrol-tokens", "List enrolment tokens"), fleet.RoleOperator, a.listTokens)
	route(a, huma.Operation{OperationID: "delete-enrol-token", Method: http.MethodDelete, Path: "/v1/enrol-tokens/{id}", Summary: "Make an enrolment token useless"}, fleet.RoleOperator, a.deleteToken)
	route(a, post("/v1/enrol", "enrol", "Enrol a device with a token"), public, a.enrol)
	route(a, post("/v1/renew", "renew", "Give a device the certificate of its next key"), public, a.renew)
}

// FormerView is an identity that the device's name had before.
type FormerView struct {
	Fingerprint string    `json:"fingerprint" doc:"SHA-256 of its key, hex"`
	Since       time.Time `json:"since"`
	Ended       time.Time `json:"ended"`
	How         string    `json:"how" enum:"revoked,replaced"`
	By          string    `json:"by,omitempty" doc:"fingerprint of the key that came after it"`
}

// identity adds who the device was before, and what is wrong with it.
func (a *api) identity(ctx context.Context, v *DeviceView) error {
	fs, err := a.Store.Formers(ctx, v.ID)
	if err != nil {
		return err
	}
	for _, f := range fs {
		if f.How != fleet.EndedRevoked && f.How != fleet.EndedReplaced {
			continue
		}
		x := FormerView{Fingerprint: fleet.Fingerprint(f.PublicKey), Since: f.Since, Ended: f.Ended, How: f.How}
		if len(f.By) > 0 {
			x.By = fleet.Fingerprint(f.By)
		}
		v.Former = append(v.Former, x)
	}
	for _, x := range a.Alarms.List(ctx) {
		if x.Subject == v.ID {
			v.Alarms = append(v.Alarms, AlarmView(x))
		}
	}
	return nil
}

func (a *api) revoke(ctx context.Context, in *ByID) (*one[DeviceView], error) {
	if err := a.Store.Revoke(ctx, in.ID, a.audit(ctx, "device.revoke", in.ID, "")); err != nil {
		return nil, err
	}
	a.Revoked(in.ID)
	d, err := a.Store.Device(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	return &one[DeviceView]{viewDevice(d)}, nil
}

func (a *api) accept(ctx context.Context, in *struct {
	ByID
	Body struct {
		Fingerprint string `json:"fingerprint,omitempty" maxLength:"64" doc:"of the key that waits; absent: whichever waits"`
	}
}) (*one[DeviceView], error) {
	if err := a.Enrolment.Accept(ctx, in.ID, in.Body.Fingerprint, actor(ctx)); err != nil {
		return nil, err
	}
	d, err := a.Store.Device(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	return &one[DeviceView]{viewDevice(d)}, nil
}

// TokenView is an enrolment token; its text only in the answer that made it.
type TokenView struct {
	ID      string            `json:"id"`
	Token   string            `json:"token,omitempty" doc:"given to devices; shown once"`
	Channel string            `json:"channel"`
	Labels  map[string]string `json:"labels"`
	Max     int               `json:"max"`
	Used    int               `json:"used"`
	Expires time.Time         `json:"expires"`
	By      string            `json:"by"`
	Hold    bool              `json:"hold,omitempty"`
	Serials []string          `json:"serials,omitempty"`
	// Replaces is the device whose place it gives.
	Replaces string `json:"replaces,omitempty" doc:"the device whose place it gives"`
}

func viewToken(t *fleet.EnrolToken) TokenView {
	return TokenView{ID: t.ID, Channel: t.Channel, Labels: orEmpty(t.Labels), Max: t.Max, Used: t.Used, Expires: t.Expires, By: t.By, Hold: t.Hold, Serials: t.Serials, Replaces: t.Replaces}
}

type newToken struct {
	Idempotency
	Body struct {
		Channel string            `json:"channel" enum:"dev,staging,production"`
		Labels  map[string]string `json:"labels,omitempty" maxProperties:"64"`
		Max     int               `json:"max,omitempty" minimum:"1" maximum:"100000" doc:"devices; default 1, with serials as many as there are"`
		Expires fleet.Duration    `json:"expires,omitempty" doc:"like 24h; default 24h"`
		Hold    bool              `json:"hold,omitempty" doc:"who enrols waits until an operator accepts its key"`
		Serials []string          `json:"serials,omitempty" maxItems:"10000" doc:"only devices that tell one of these get in, each once"`
	}
}

func (a *api) createToken(ctx context.Context, in *newToken) (*one[TokenView], error) {
	for k, v := range in.Body.Labels {
		if err := fleet.CheckLabel(k, v); err != nil {
			return nil, err
		}
	}
	if in.Body.Max == 0 {
		in.Body.Max = max(1, len(in.Body.Serials))
	}
	return a.newToken(ctx, fleet.TokenRequest{Channel: in.Body.Channel, Labels: in.Body.Labels, Max: in.Body.Max, Expires: time.Duration(in.Body.Expires), Hold: in.Body.Hold, Serials: in.Body.Serials})
}

func (a *api) newToken(ctx context.Context, r fleet.TokenRequest) (*one[TokenView], error) {
	if r.Expires == 0 {
		r.Expires = 24 * time.Hour
	}
	t, text, err := a.Enrolment.NewToken(ctx, r, actor(ctx))
	if err != nil {
		return nil, err
	}
	v := viewToken(t)
	v.Token = text
	return &one[TokenView]{v}, nil
}

type replacement struct {
	Idempotency
	ByID
	Body struct {
		Expires fleet.Duration `json:"expires,omitempty" doc:"like 24h; default 24h"`
		Serials []string       `json:"serials,omitempty" maxItems:"1" doc:"of the new hardware"`
	}
}

func (a *api) replace(ctx context.Context, in *replacement) (*one[TokenView], error) {
	return a.newToken(ctx, fleet.TokenRequest{Replaces: in.ID, Max: 1, Expires: time.Duration(in.Body.Expires), Serials: in.Body.Serials})
}

func (a *api) retire(ctx context.Context, in *ByID) (*one[DeviceView], error) {
	if err := a.Retire(ctx, in.ID, a.audit(ctx, "device.retire", in.ID, "")); err != nil {
		return nil, err
	}
	a.Revoked(in.ID)
	d, err := a.Store.Device(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	return &one[DeviceView]{viewDevice(d)}, nil
}

func (a *api) reject(ctx context.Context, in *ByID) (*struct{}, error) {
	return nil, a.Enrolment.Reject(ctx, in.ID, actor(ctx))
}

func (a *api) listTokens(ctx context.Context, _ *struct{}) (*page[TokenView], error) {
	ts, err := a.Store.EnrolTokens(ctx)
	if err != nil {
		return nil, err
	}
	items := make([]TokenView, len(ts))
	for i, t := range ts {
		items[i] = viewToken(t)
	}
	return paged(items, 0, nil), nil
}

func (a *api) deleteToken(ctx context.Context, in *ByID) (*struct{}, error) {
	err := a.Store.DeleteEnrolToken(ctx, in.ID, a.audit(ctx, "token.delete", in.ID, ""))
	if errors.Is(err, fleet.ErrTokenUnknown) { // 401 is for devices that show one
		absent := fleet.ErrTokenUnknown.With("there is no enrolment token %s", in.ID)
		absent.Next, absent.Status = "list them with 'GET /v1/enrol-tokens'", http.StatusNotFound
		return nil, absent
	}
	return nil, err
}

func (a *api) enrol(ctx context.Context, in *struct{ Body wire.EnrolRequest }) (*one[wire.EnrolReply], error) {
	r, err := a.Enrolment.Enrol(ctx, &in.Body)
	if err != nil {
		return nil, err
	}
	return &one[wire.EnrolReply]{*r}, nil
}

func (a *api) renew(ctx context.Context, in *struct{ Body wire.RenewRequest }) (*one[wire.RenewReply], error) {
	r, err := a.Enrolment.Renew(ctx, &in.Body)
	if err != nil {
		return nil, err
	}
	return &one[wire.RenewReply]{*r}, nil
}
