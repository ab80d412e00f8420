package broker

import (
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/dunlin-edge/dunlin/fleet"
)

// connEvent is what nats-server tells of a connection on its system account.
type connEvent struct {
	Client struct {
		ID   uint64 `json:"id"`
		MQTT string `json:"client_id"`
	} `json:"client"`
}

// watch follows connections. A refused duplicate also tells of itself, so a
// device is a set of connection ids. Events can be lost in a storm; reconcile
// sets that right.
func (b *Broker) watch(sys *nats.Conn) error {
	_, err := sys.Subscribe("$SYS.ACCOUNT."+account+".*", func(m *nats.Msg) {
		if !b.enter() {
			return
		}
		defer b.work.RUnlock()
		up := strings.HasSuffix(m.Subject, ".CONNECT")
		if !up && !strings.HasSuffix(m.Subject, ".DISCONNECT") {
			return
		}
		var e connEvent
		if json.Unmarshal(m.Data, &e) != nil || e.Client.MQTT == "" {
			return
		}
		if up {
			b.stays(e.Client.MQTT, e.Client.ID)
		}
		if changed, online := b.note(e.Client.MQTT, e.Client.ID, up); changed {
			b.tell(e.Client.MQTT, online)
		}
	})
	return err
}

// note takes in one connection and tells whether the device went on or off.
func (b *Broker) note(device string, id uint64, up bool) (changed, online bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	before := len(b.live[device]) > 0
	if up {
		if b.live[device] == nil {
			b.live[device] = map[uint64]bool{}
		}
		b.live[device][id] = true
	} else if delete(b.live[device], id); len(b.live[device]) == 0 {
		delete(b.live, device)
	}
	online = len(b.live[device]) > 0
	return before != online, online
}

func (b *Broker) tell(device string, online bool) {
	err := b.c.Devices.Presence(b.ctx, device, online)
	switch {
	case err == nil || b.ctx.Err() != nil:
	case errors.Is(err, fleet.ErrDeviceRevoked):
		b.c.Log.Info("session of a revoked device ended", "device", device, "sessions", b.Kick(device))
	default:
		b.c.Log.Error("presence is not stored", "device", device, "err", err)
	}
}

// reconcile compares what is believed with the connections that there are.
func (b *Broker) reconcile() {
	z, err := b.srv.Connz(&server.ConnzOptions{Account: account, Limit: 1 << 20})
	if err != nil {
		return
	}
	b.police(z.Conns, reconcileEvery)
	live := map[string]map[uint64]bool{}
	for _, c := range z.Conns {
		if c.MQTTClient != "" {
			if live[c.MQTTClient] == nil {
				live[c.MQTTClient] = map[uint64]bool{}
			}
			live[c.MQTTClient][c.Cid] = true
		}
	}
	b.mu.Lock()
	var off, on []string
	for d := range b.live {
		if live[d] == nil {
			off = append(off, d)
		}
	}
	for d := range live {
		if b.live[d] == nil {
			on = append(on, d)
		}
	}
	b.live = live
	for id, x := range b.shown {
		if time.Since(x.at) > reconcileEvery && !live[x.device][id] { // it never began
			delete(b.shown, id)
		}
	}
	b.mu.Unlock()
	for d, ids := range live {
		for id := range ids {
			b.stays(d, id) // whose beginning was not told
		}
	}
	for _, d := range off {
		b.tell(d, false)
	}
	for _, d := range on {
		b.tell(d, true)
	}
}

// Online lists the devices that have a session, in order.
func (b *Broker) Online() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Sorted(maps.Keys(b.live))
}
