package broker

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

// subjectRoot is the MQTT topic's beginning as a NATS subject.
const subjectRoot = "dunlin.v1."

// serve subscribes each class of traffic on a connection of its own.
func (b *Broker) serve() error {
	for _, class := range []struct {
		name  string
		kinds []wire.Kind
	}{
		{"hello", []wire.Kind{wire.KindHello, wire.KindAnswer, wire.KindPresence}},
		{"records", []wire.Kind{wire.KindReport, wire.KindSample, wire.KindEvent, wire.KindCapture}},
		{"get", []wire.Kind{wire.KindGet}},
		{"sys", nil},
	} {
		nc, err := b.dial(class.name)
		if err != nil {
			return err
		}
		b.in = append(b.in, nc)
		for _, k := range class.kinds {
			if _, err := nc.Subscribe(subjectRoot+"*.up."+string(k), b.receive(k)); err != nil {
				return err
			}
		}
		if class.name == "sys" {
			if err := b.watch(nc); err != nil {
				return err
			}
		}
		if err := nc.Flush(); err != nil {
			return err
		}
	}
	return nil
}

// receive handles messages of one kind. What is not understood is logged, within
// the rate limit, and changes nothing.
func (b *Broker) receive(k wire.Kind) nats.MsgHandler {
	return func(m *nats.Msg) {
		if !b.enter() {
			return
		}
		defer b.work.RUnlock()
		device, _, found := strings.Cut(strings.TrimPrefix(m.Subject, subjectRoot), ".")
		if !found || !wire.ValidDevice(device) || !b.allow(device) {
			return
		}
		if err := b.handle(device, k, m.Data); err != nil && b.ctx.Err() == nil {
			b.c.Log.Warn("message refused", "device", device, "kind", string(k), "code", code(err), "err", err)
		}
	}
}

// enter keeps Run from ending while a message is handled; the caller unlocks.
func (b *Broker) enter() bool {
	b.work.RLock()
	if b.ended {
		b.work.RUnlock()
		return false
	}
	return true
}

func code(err error) string {
	var e *fleet.Error
	if errors.As(err, &e) {
		return e.Code
	}
	return cmp.Or(wire.Code(err), fleet.ErrInternal.Code)
}

func (b *Broker) handle(device string, k wire.Kind, data []byte) error {
	switch k {
	case wire.KindHello:
		var h wire.Hello
		if err := wire.Decode(data, &h); err != nil {
			return err
		}
		w, err := b.c.Devices.Hello(b.ctx, device, &h)
		if err != nil {
			return err
		}
		return b.send(device, wire.KindWelcome, w)
	case wire.KindReport, wire.KindSample, wire.KindEvent, wire.KindCapture:
		var batch wire.Batch
		if err := wire.Decode(data, &batch); err != nil {
			return err
		}
		ack, err := b.c.Devices.Records(b.ctx, device, k, &batch)
		if err != nil {
			return err
		}
		return b.send(device, wire.KindAck, &ack)
	case wire.KindGet:
		var g wire.Get
		if err := wire.Decode(data, &g); err != nil {
			return err
		}
		if g.Refresh != nil {
			return b.refresh(device, &g)
		}
		return b.blocks(device, &g)
	case wire.KindAnswer:
		var a wire.Answer
		if err := wire.Decode(data, &a); err != nil {
			return err
		}
		b.c.Log.Info("device answered", "device", device, "ask", a.ID, "error", a.Error)
	}
	return nil
}

// send publishes a message to a device; without a session it is gone, and a later
// hello makes it good.
func (b *Broker) send(device string, k wire.Kind, msg any) error {
	data, err := wire.Encode(msg)
	if err != nil {
		return err
	}
	return b.publish(device, k, data)
}

func (b *Broker) publish(device string, k wire.Kind, data []byte) error {
	if err := b.out.Publish(subjectRoot+device+".down."+string(k), data); err != nil {
		return fmt.Errorf("send %s: %w", k, err)
	}
	return nil
}

// Poke has devices say hello soon. One that does not hear it does so by itself.
func (b *Broker) Poke(devices []string) {
	for _, d := range devices {
		if err := b.Ask(d, &wire.Ask{ID: fleet.NewID("ask_", time.Now()), Verb: "hello"}); err != nil {
			b.c.Log.Debug("not asked", "device", d, "err", err)
		}
	}
}

// Ask sends an instruction to a device.
func (b *Broker) Ask(device string, a *wire.Ask) error { return b.send(device, wire.KindAsk, a) }
