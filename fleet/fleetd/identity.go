package fleetd

import (
	"context"
	"time"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

// ended ends what lives of an identity that has ended: its sessions, and the alarms
// about it.
func (s *server) ended(device string) {
	ctx, cancel := context.WithTimeout(context.Background(), admitTimeout)
	defer cancel()
	s.log.Info("identity ended", "device", device, "sessions_ended", s.broker.Kick(device))
	s.telemetry.Forget(device)
	for _, kind := range []string{fleet.AlarmCloned, fleet.AlarmRecoveredKey} {
		s.alarms.Clear(ctx, kind, device)
	}
}

// copied raises the alarm that two devices share an identity, and writes the first
// sign of it among the device's events.
func (s *server) copied(ctx context.Context, device, detail string) {
	fresh := s.alarms.Raise(ctx, fleet.Alarm{Kind: fleet.AlarmCloned, Subject: device, Urgent: true,
		Text: "two devices speak as one: its identity was copied, or its disk was set back to an earlier state",
		Next: "find the copy; 'dunlin device replace " + device + "' gives the right one a new identity and shuts out every copy of the old"})
	if !fresh {
		return
	}
	now := time.Now()
	e := fleet.Event{ID: fleet.NewID(fleet.PrefixEvent, now), Device: device, Epoch: serverEpoch, Sequence: uint64(now.UnixMicro()), At: now,
		Event: wire.Event{Unix: now.Unix(), Type: fleet.AlarmCloned, Code: fleet.AlarmCloned, Detail: detail}}
	if err := s.db.InsertEvents(ctx, []fleet.Event{e}); err != nil {
		s.log.Error("event is not stored", "device", device, "err", err)
	}
}

// serverEpoch numbers the events about a device that the server itself has noticed.
const serverEpoch = 0
