package fleetd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/enroll"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

// face is what the server shows of itself: its CAs, its names, its certificate.
type face struct {
	standing *enroll.Standing
	cert     tls.Certificate
	cas      *x509.CertPool
}

// faces is the face of now. The commands 'ca' and 'name' change files; a server that
// serves takes the change in without a restart.
type faces struct {
	api, mqtt string // ports
	now       atomic.Pointer[face]

	mu    sync.Mutex
	stamp string // of the files that now was made from
}

// watchEvery is how often it is looked whether the files have changed.
const watchEvery = time.Second

// listens is told the ports that the server has got, and makes its first face.
func (s *server) listens(api, mqtt string) error {
	s.faces.api, s.faces.mqtt = api, mqtt
	f, stamp, err := s.readFace()
	if err != nil {
		return err
	}
	s.faces.now.Store(f)
	s.faces.stamp = stamp
	return nil
}

func (s *server) standing() *enroll.Standing { return s.faces.now.Load().standing }

// tls is what a handshake begins with. The broker asks before the ports are known
// only if somebody connects before the server is ready, and refuses that.
func (s *server) tls() (*tls.Certificate, *x509.CertPool) {
	f := s.faces.now.Load()
	if f == nil {
		return &s.keys.server, x509.NewCertPool()
	}
	return &f.cert, f.cas
}

// faceStamp changes with the files that a face is made from.
func faceStamp(dir string) (string, error) {
	var out string
	for _, name := range []string{configFile, caFile, caKeyFile} {
		st, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			return "", err
		}
		out += fmt.Sprintf("%s %d %d\n", name, st.Size(), st.ModTime().UnixNano())
	}
	return out, nil
}

func (s *server) readFace() (*face, string, error) {
	stamp, err := faceStamp(s.c.Dir)
	if err != nil {
		return nil, "", fleet.ErrServerKeys.With("%v", err)
	}
	c, err := LoadConfig(s.c.Dir)
	if err != nil {
		return nil, "", err
	}
	k, err := loadKeys(s.c.Dir, c.names(), time.Now())
	if err != nil {
		return nil, "", err
	}
	st := &enroll.Standing{CAs: k.cas}
	for _, n := range c.names() {
		st.Addresses = append(st.Addresses, wire.Address{Server: "https://" + net.JoinHostPort(n, s.faces.api), MQTT: net.JoinHostPort(n, s.faces.mqtt)})
	}
	return &face{st, k.server, st.Pool()}, stamp, nil
}

// worn tells whether the certificate is past two thirds of its life: one that is read
// anew is then another one.
func (f *face) worn(now time.Time) bool {
	return f != nil && f.cert.Leaf.NotAfter.Sub(now) < enroll.ServerLife/3
}

// look takes in a change of the files and tells whether there was one; a worn
// certificate is replaced as well. What cannot be read changes nothing.
func (s *server) look() (changed bool, err error) {
	s.faces.mu.Lock()
	defer s.faces.mu.Unlock()
	stamp, err := faceStamp(s.c.Dir)
	if err != nil || stamp == s.faces.stamp && !s.faces.now.Load().worn(time.Now()) {
		return false, err
	}
	f, stamp, err := s.readFace()
	if err != nil {
		return false, err
	}
	was := &enroll.Standing{CAs: s.keys.cas}
	if now := s.faces.now.Load(); now != nil {
		was = now.standing
	}
	if !slices.ContainsFunc(f.standing.CAs, func(c *enroll.CA) bool { return was.Has(c) }) {
		if err := s.retired(f.standing); err != nil {
			return false, err
		}
	}
	s.faces.now.Store(f)
	s.faces.stamp = stamp
	return !slices.Equal(was.Addresses, f.standing.Addresses) || string(enroll.Certs(was.CAs)) != string(enroll.Certs(f.standing.CAs)), nil
}

// retired returns an error unless these CAs have come after all those that the server
// knows by acts on its own database: 'ca rotate', 'switch' and 'retire' may all happen
// between two looks.
func (s *server) retired(st *enroll.Standing) error {
	ctx, cancel := context.WithTimeout(context.Background(), admitTimeout)
	defer cancel()
	name, _, err := net.SplitHostPort(st.Addresses[0].MQTT)
	if err != nil {
		return err
	}
	as, err := s.db.Audit(ctx, name, "", 100)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(as, func(a fleet.Audit) bool {
		return a.Act == "ca.retire" && strings.HasPrefix(a.Detail, standsAlone(st.CAs[0]))
	}) {
		return fleet.ErrServerKeys.With("the CAs in %s are not those that the server was started with", s.c.Dir)
	}
	return nil
}

// watchFace follows the files until ctx ends.
func (s *server) watchFace(ctx context.Context) error {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	said := ""
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		changed, err := s.look()
		switch {
		case err != nil && err.Error() != said: // upkeep raises the alarm
			said = err.Error()
			s.log.Error("names or CAs cannot be read; those before are used", "err", err)
		case changed:
			said = ""
			s.log.Info("names or CAs changed", "address", s.standing().Addresses[0].MQTT, "ca", s.standing().CAs[0].Name(), "cas", len(s.standing().CAs))
			if err := s.spread(ctx); err != nil && ctx.Err() == nil {
				s.log.Error("devices hear of it at their next hello", "err", err)
			}
		}
	}
}

// spreadPause is the least time between two devices that are told of a change.
const spreadPause = 2 * time.Millisecond

// spread has the devices that are online say hello, which brings them what changed,
// and ends the sessions of certificates whose CA has gone.
func (s *server) spread(ctx context.Context) error {
	fs, err := s.db.Followers(ctx)
	if err != nil {
		return err
	}
	pace := time.NewTicker(spreadPause)
	defer pace.Stop()
	for i := range fs {
		f := s.standing().Follow(&fs[i])
		if len(f.Hangs) == 0 {
			s.broker.Kick(f.Device)
			continue
		}
		if err := s.broker.Ask(f.Device, &wire.Ask{ID: fleet.NewID("ask_", time.Now()), Verb: "hello"}); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-pace.C:
		}
	}
	return nil
}

// maxFormerNames bounds what devices are told.
const maxFormerNames = wire.MaxAddresses - 1

// names are the host names of the server, the one to be used first.
func (c *Config) names() []string { return append([]string{c.Name}, c.FormerNames...) }

// came takes in that a device holds the key of a certificate.
func (s *server) came(ctx context.Context, c *x509.Certificate) error {
	device := c.Subject.CommonName
	recovered, err := s.enrol.Recover(ctx, c)
	if err != nil {
		return err
	}
	if recovered {
		s.log.Warn("identity recovered", "device", device, "sessions_ended", s.broker.Kick(device))
		s.alarms.Raise(ctx, fleet.Alarm{Kind: fleet.AlarmRecoveredKey, Subject: device,
			Text: "it came with a key that it got after the backup; it was believed, because a CA of ours has issued the certificate",
			Next: "make sure that the device is where it should be, or revoke it; then 'dunlin alarms dismiss " + fleet.AlarmRecoveredKey + " " + device + "'"})
	}
	return s.cameNext(ctx, device, c.RawSubjectPublicKeyInfo)
}
