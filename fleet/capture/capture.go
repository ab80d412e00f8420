// Package capture asks devices for inputs, takes them in and erases them. Orders are
// signed for each device; every act is in the audit; what is captured is kept apart
// from all other blobs, is never part of a backup, and ends with its capture.
package capture

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/shared/bundle"
	"github.com/dunlin-edge/dunlin/shared/where"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

// Store is what captures need kept. AddCaptured is idempotent; EraseCaptured without
// a capture and a device erases what is over.
type Store interface {
	Device(ctx context.Context, id string) (*fleet.Device, error)
	Devices(ctx context.Context, f fleet.DeviceFilter) ([]*fleet.Device, error)
	CreateCapture(ctx context.Context, c *fleet.Capture, a fleet.Audit) error
	StopCapture(ctx context.Context, id string, at time.Time, a fleet.Audit) error
	Captures(ctx context.Context) ([]fleet.Capture, error)
	Capture(ctx context.Context, id string) (*fleet.Capture, error)
	CaptureDevices(ctx context.Context, id string) ([]fleet.CaptureDevice, error)
	CapturedBytes(ctx context.Context) (int64, error)
	AddCaptured(ctx context.Context, parts []fleet.CapturePart, now time.Time) (unused []string, err error)
	CapturedSamples(ctx context.Context, id, after string, limit int) ([]fleet.CapturedSample, error)
	CapturedSample(ctx context.Context, id, device, sample string) (*fleet.CapturedSample, error)
	EraseCaptured(ctx context.Context, e fleet.Erase, over time.Time, a fleet.Audit) (samples int64, unused []string, err error)
	NamedBlob(ctx context.Context, digest string) (bool, error)
	AddAudit(ctx context.Context, a fleet.Audit) error
}

// Blobs keeps inputs. Remove of what is not there is no error.
type Blobs interface {
	Put(digest string, r io.Reader, limit int64) error
	Open(digest string) (io.ReadCloser, error)
	Remove(digest string) error
	List() ([]string, error)
}

// Quota bounds the inputs of all captures together, in bytes. What comes beyond it
// is refused and counted.
const Quota = 8 << 30

// sweepEvery is how soon a capture that is over is erased.
const sweepEvery = time.Minute

// Service is safe for concurrent use.
type Service struct {
	Store Store
	Blobs Blobs
	// Sign signs orders with a CA that the device trusts.
	Sign func(ctx context.Context, device string, o *wire.CaptureOrders) (*wire.Envelope, error)
	// Poke has devices that are online say hello soon.
	Poke func(devices []string)
	Now  func() time.Time
	Log  *slog.Logger

	mu sync.Mutex // a blob is not removed while it is being named
}

func (s *Service) audit(actor, act, object string, detail any) fleet.Audit {
	text, err := json.Marshal(detail)
	if err != nil { // of values of ours, which encode
		text = []byte(err.Error())
	}
	now := s.Now()
	return fleet.Audit{ID: fleet.NewID(fleet.PrefixAudit, now), At: now, Actor: actor, Act: act, Object: object, Detail: string(text)}
}

// Create starts a capture.
func (s *Service) Create(ctx context.Context, spec fleet.CaptureSpec, actor string) (*fleet.Capture, error) {
	if err := check(&spec); err != nil {
		return nil, err
	}
	all, err := s.Store.Captures(ctx)
	if err != nil {
		return nil, err
	}
	now := s.Now().UTC().Truncate(time.Second)
	if n := len(slices.DeleteFunc(all, func(c fleet.Capture) bool { return !now.Before(c.Expires) })); n >= wire.MaxCaptureOrders {
		return nil, fleet.ErrCaptureMany.With("%d captures are not over yet, a device takes %d", n, wire.MaxCaptureOrders)
	}
	c := &fleet.Capture{ID: fleet.NewID(fleet.PrefixCapture, now), Spec: spec, By: actor, Created: now, Expires: now.Add(time.Duration(spec.Hours) * time.Hour)}
	if err := s.Store.CreateCapture(ctx, c, s.audit(actor, "capture.create", c.ID, spec)); err != nil {
		return nil, err
	}
	return c, s.poke(ctx, c)
}

func check(spec *fleet.CaptureSpec) error {
	switch _, err := where.Parse(spec.Where); {
	case err != nil:
		return fleet.ErrCaptureInvalid.With("where: %v", err)
	case spec.Model == "" || strings.ContainsAny(spec.Model, "/ \t\n"):
		return fleet.ErrCaptureInvalid.With("model: a name is wanted")
	case spec.Max < 1 || spec.Max > fleet.MaxCaptureSamples:
		return fleet.ErrCaptureInvalid.With("max: 1 to %d samples are wanted", fleet.MaxCaptureSamples)
	case spec.MBPerDevice < 1 || spec.MBPerDevice > fleet.MaxCaptureMB:
		return fleet.ErrCaptureInvalid.With("mb_per_device: 1 to %d are wanted", fleet.MaxCaptureMB)
	case spec.Hours < 1 || spec.Hours > int(fleet.MaxCaptureLife/time.Hour):
		return fleet.ErrCaptureInvalid.With("hours: 1 to %d are wanted", int(fleet.MaxCaptureLife/time.Hour))
	}
	if _, err := bundle.ParseSelector(spec.Selector); err != nil {
		return fleet.ErrSelector.With("selector: %v", err)
	}
	return nil
}

// poke has the devices of a capture hear of it.
func (s *Service) poke(ctx context.Context, c *fleet.Capture) error {
	ds, err := s.Store.Devices(ctx, fleet.DeviceFilter{Selector: c.Spec.Selector})
	if err != nil {
		return err
	}
	var ids []string
	for _, d := range ds {
		if d.Online {
			ids = append(ids, d.ID)
		}
	}
	s.Poke(ids)
	return nil
}

// Stop has no more inputs kept; what was captured stays until the capture ends.
func (s *Service) Stop(ctx context.Context, id, actor string) (*fleet.Capture, error) {
	if err := s.Store.StopCapture(ctx, id, s.Now(), s.audit(actor, "capture.stop", id, struct{}{})); err != nil {
		return nil, err
	}
	c, err := s.Store.Capture(ctx, id)
	if err != nil {
		return nil, err
	}
	return c, s.poke(ctx, c)
}

// List lists captures, the newest first.
func (s *Service) List(ctx context.Context) ([]fleet.Capture, error) { return s.Store.Captures(ctx) }

// Show returns a capture and what devices brought to it.
func (s *Service) Show(ctx context.Context, id string) (*fleet.Capture, []fleet.CaptureDevice, error) {
	c, err := s.Store.Capture(ctx, id)
	if err != nil {
		return nil, nil, err
	}
	ds, err := s.Store.CaptureDevices(ctx, id)
	return c, ds, err
}

// Pull lists whole samples; the first page of every pull is in the audit before
// anybody sees it.
func (s *Service) Pull(ctx context.Context, id, after string, limit int, actor string) ([]fleet.CapturedSample, error) {
	if _, err := s.Store.Capture(ctx, id); err != nil {
		return nil, err
	}
	if after == "" {
		if err := s.Store.AddAudit(ctx, s.audit(actor, "capture.pull", id, struct{}{})); err != nil {
			return nil, err
		}
	}
	return s.Store.CapturedSamples(ctx, id, after, limit)
}

// Open returns the inputs of one sample, one behind the other, and is in the audit
// before anybody sees them.
func (s *Service) Open(ctx context.Context, id, device, sample, actor string) ([]byte, error) {
	x, err := s.Store.CapturedSample(ctx, id, device, sample)
	if err != nil {
		return nil, err
	}
	if err := s.Store.AddAudit(ctx, s.audit(actor, "capture.read", id, map[string]string{"device": device, "sample": sample})); err != nil {
		return nil, err
	}
	var out bytes.Buffer
	for _, digest := range x.Blobs {
		if err := s.copy(&out, digest); err != nil {
			return nil, fmt.Errorf("sample %s of %s: %w", sample, device, err)
		}
	}
	if sum := sha256.Sum256(out.Bytes()); !bytes.Equal(sum[:], x.About.Digest) {
		return nil, fmt.Errorf("sample %s of %s is damaged", sample, device)
	}
	return out.Bytes(), nil
}

func (s *Service) copy(to io.Writer, digest string) error {
	r, err := s.Blobs.Open(digest)
	if errors.Is(err, fs.ErrNotExist) {
		return fleet.ErrCaptureGone
	}
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = io.Copy(to, r)
	return err
}

// Erase erases what was captured from a device, or a capture.
func (s *Service) Erase(ctx context.Context, e fleet.Erase, actor string) (samples int64, err error) {
	if (e.Device == "") == (e.Capture == "") {
		return 0, fleet.ErrBadRequest.With("a device or a capture is wanted")
	}
	var over *fleet.Capture
	if e.Capture != "" {
		if over, err = s.Store.Capture(ctx, e.Capture); err != nil {
			return 0, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	samples, unused, err := s.Store.EraseCaptured(ctx, e, time.Time{}, s.audit(actor, "data.erase", e.Device+e.Capture, e))
	if err == nil {
		err = s.remove(unused)
	}
	if err == nil && over != nil { // its devices erase what they hold of it
		err = s.poke(ctx, over)
	}
	return samples, err
}

func (s *Service) remove(digests []string) error {
	var errs []error
	for _, d := range digests {
		errs = append(errs, s.Blobs.Remove(d))
	}
	return errors.Join(errs...)
}

// Run erases captures when they are over, until ctx ends. At its start it also
// removes inputs that a crash left without a name.
func (s *Service) Run(ctx context.Context) error {
	if err := s.orphans(ctx); err != nil && ctx.Err() == nil {
		s.Log.Error("captured inputs without a name are not removed", "err", err)
	}
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		if err := s.Sweep(ctx); err != nil && ctx.Err() == nil {
			s.Log.Error("captures that are over are not erased", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// Sweep erases captures that are over.
func (s *Service) Sweep(ctx context.Context) error {
	now := s.Now()
	all, err := s.Store.Captures(ctx)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(all, func(c fleet.Capture) bool { return !now.Before(c.Expires) }) {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	n, unused, err := s.Store.EraseCaptured(ctx, fleet.Erase{}, now, s.audit("server", "capture.expire", "", struct{}{}))
	if err != nil {
		return err
	}
	s.Log.Info("captures are over", "samples", n)
	return s.remove(unused)
}

// orphans removes blobs that no sample names.
func (s *Service) orphans(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	list, err := s.Blobs.List()
	if err != nil {
		return err
	}
	for _, digest := range list {
		named, err := s.Store.NamedBlob(ctx, digest)
		if err != nil {
			return err
		}
		if !named {
			if err := s.Blobs.Remove(digest); err != nil {
				return err
			}
		}
	}
	return nil
}
