package attacks

import (
	"encoding/json"
	"errors"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/dunlin-edge/dunlin/agent/identity"
	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/catalog/catalogtest"
	"github.com/dunlin-edge/dunlin/fleet/publish"
	"github.com/dunlin-edge/dunlin/shared/durable"
	"github.com/dunlin-edge/dunlin/shared/wire"
	"github.com/dunlin-edge/dunlin/testbed/lab"
)

// asks has the holder of a role's API token ask the server for something.
func asks(role, method, path string, body func(*testing.T, *world) any, code string) func(*testing.T, *world) {
	return func(t *testing.T, w *world) {
		t.Parallel()
		s := lab.Start(t)
		var made struct {
			Token string `json:"token"`
		}
		s.Do(http.MethodPost, "/v1/access", map[string]any{"name": "stolen", "role": role}, &made)
		c, err := publish.NewClient(publish.ClientConfig{Server: s.Token().Server, Token: made.Token, CA: filepath.Join(s.Dir, "ca.pem")})
		must(t, err)
		var b []byte
		if body != nil {
			switch x := body(t, w).(type) {
			case []byte:
				b = x
			default:
				b, err = json.Marshal(x)
				must(t, err)
			}
		}
		_, err = c.Do(t.Context(), method, path, b)
		var refused *fleet.Error
		switch errors.As(err, &refused); {
		case code == "" && err != nil:
			t.Errorf("%v, and the page says that this succeeds", err)
		case code != "" && (refused == nil || refused.Code != code):
			t.Errorf("%v, want %s", err, code)
		}
	}
}

// ownRole is a role that the thief signed with keys of its own.
func ownRole(t *testing.T, _ *world) any {
	p := catalogtest.New(t, 1, 1, catalogtest.NewOnline(), time.Now().UTC().Truncate(time.Second))
	return p.SignRole(p.Next("production", nil))
}

// ownCeremony is a ceremony with keys of the thief's own.
func ownCeremony(t *testing.T, _ *world) any {
	p := catalogtest.New(t, 1, 1, catalogtest.NewOnline(), time.Now().UTC().Truncate(time.Second))
	return p.Ceremony()
}

// enrols has the thief of a token enrol under a name, after something happened.
func enrols(name string, before func(*testing.T, *lab.Server, *wire.EnrolToken), code string) func(*testing.T, *world) {
	return func(t *testing.T, _ *world) {
		t.Parallel()
		s := lab.Start(t)
		s.Enrol("meter-1")
		tok := s.Token()
		before(t, s, tok)
		_, err := identity.Enrol(t.Context(), durable.OS{}, filepath.Join(t.TempDir(), "identity"), tok, name, nil)
		var refused *identity.ServerError
		if !errors.As(err, &refused) || refused.Code != code {
			t.Errorf("%v, want %s", err, code)
		}
	}
}

// serverRows are about what is stolen from operators and devices.
func serverRows() []group {
	role := "/v1/catalog/roles/production"
	nothing := func(*testing.T, *lab.Server, *wire.EnrolToken) {}
	use := func(t *testing.T, _ *lab.Server, tok *wire.EnrolToken) {
		_, err := identity.Enrol(t.Context(), durable.OS{}, filepath.Join(t.TempDir(), "identity"), tok, "meter-7", nil)
		must(t, err)
	}
	change := func(f func(*wire.EnrolToken)) func(*testing.T, *lab.Server, *wire.EnrolToken) {
		return func(_ *testing.T, _ *lab.Server, tok *wire.EnrolToken) { f(tok) }
	}
	spec := func(*testing.T, *world) any {
		return map[string]any{"model": "digits", "version": "6.6.6", "channel": "production", "selector": "arch=arm64", "stages": []any{map[string]any{"percent": 100}}}
	}
	token := func(*testing.T, *world) any { return map[string]any{"channel": "production"} }
	return []group{{"Stolen operator's token", "an API token of the role that is named, and the network", []attack{
		{name: "publishes", powers: "viewer", code: "auth.forbidden", run: asks(fleet.RoleViewer, http.MethodPut, role, ownRole, "auth.forbidden")},
		{name: "starts a rollout", powers: "viewer", code: "auth.forbidden", run: asks(fleet.RoleViewer, http.MethodPost, "/v1/rollouts", spec, "auth.forbidden")},
		{name: "makes an enrolment token", powers: "viewer", code: "auth.forbidden", run: asks(fleet.RoleViewer, http.MethodPost, "/v1/enrol-tokens", token, "auth.forbidden")},
		{name: "reads what the fleet is and runs", powers: "viewer", holds: "**this succeeds**", run: asks(fleet.RoleViewer, http.MethodGet, "/v1/devices", nil, "")},
		{name: "publishes", powers: "operator", code: "auth.forbidden", run: asks(fleet.RoleOperator, http.MethodPut, role, ownRole, "auth.forbidden")},
		{name: "makes itself an admin", powers: "operator", code: "auth.forbidden", run: asks(fleet.RoleOperator, http.MethodPost, "/v1/access", func(*testing.T, *world) any { return map[string]any{"name": "mallory", "role": "admin"} }, "auth.forbidden")},
		{name: "rolls out a release that is not published", powers: "operator", code: "release.unknown", run: asks(fleet.RoleOperator, http.MethodPost, "/v1/rollouts", spec, "release.unknown")},
		{name: "lets devices in, revokes devices, rolls out what is published", powers: "operator", holds: "**this succeeds**; each act is in the audit", run: asks(fleet.RoleOperator, http.MethodPost, "/v1/enrol-tokens", token, "")},
		{name: "publishes with keys of its own", powers: "publisher", code: "catalog.refused", run: asks(fleet.RolePublisher, http.MethodPut, role, ownRole, "catalog.refused")},
		{name: "makes an API token", powers: "publisher", code: "auth.forbidden", run: asks(fleet.RolePublisher, http.MethodPost, "/v1/access", func(*testing.T, *world) any { return map[string]any{"name": "mallory", "role": "admin"} }, "auth.forbidden")},
		{name: "publishes with keys of its own", powers: "admin", code: "catalog.refused", run: asks(fleet.RoleAdmin, http.MethodPut, role, ownRole, "catalog.refused")},
		{name: "installs roots of its own", powers: "admin", code: "catalog.stale", run: asks(fleet.RoleAdmin, http.MethodPost, "/v1/catalog/roots", ownCeremony, "catalog.stale")},
		{name: "asks every route with every role", code: "auth.forbidden", test: "fleet/web TestMatrix"},
		{name: "guesses tokens", code: "auth.missing", test: "fleet/web TestBadTokens"},
	}}, {"Stolen enrolment token", "the token's text and the network", []attack{
		{name: "takes the name of a device that there is", code: "device.exists", run: enrols("meter-1", nothing, "device.exists")},
		{name: "uses it a second time with another key", code: "token.spent", run: enrols("meter-8", use, "token.spent")},
		{name: "guesses the secret of a token whose name it knows", code: "token.unknown", run: enrols("meter-8", change(func(k *wire.EnrolToken) { k.Secret[0] ^= 1 }), "token.unknown")},
		{name: "uses it after it has expired", code: "token.expired", test: "fleet/enroll TestEnrolRefusals: expired token: %v"},
		{name: "uses it on hardware that it does not list", code: "serial.unlisted", test: "fleet/enroll TestSerials"},
		{name: "is the server to a device that enrols", powers: "a server of its own", holds: "the token names CA and roots by fingerprint: the device refuses", test: "agent/identity TestEnrolWithImpostor"},
		{name: "enrols a device of its own before the owner does", holds: "**this succeeds**: one device that gets the channel's models and can prove only itself; the owner's own enrolment fails and tells"},
	}}, {"Stolen device key", "the key and certificate of one device, and the network", []attack{
		{name: "takes another device's session", code: "", holds: "not let in", test: "testbed/lab TestIntruders: the client id of another"},
		{name: "listens to and speaks for others", holds: "nothing is heard, nothing is stored", test: "testbed/lab TestForeignTopics"},
		{name: "reads models that the device was not assigned", code: "blob.not_assigned", test: "testbed/lab TestOwnFilesOnly"},
		{name: "reports for another device", code: "record.refused", holds: "it changes nothing", test: "fleet/telemetry TestForeignAndBrokenReportsChangeNothing"},
		{name: "repeats an old report", holds: "it changes nothing", test: "fleet/telemetry TestAReplayedReportChangesNothing"},
		{name: "is online beside the device", holds: "an alarm names the device", test: "testbed/lab TestCopy"},
		{name: "renews it for a key of its own", code: "renew.refused", holds: "a second next key is refused; one that was taken shuts the device out, which is noticed", test: "fleet/enroll TestRenewRefusals: a second next key at once"},
		{name: "goes on after it was revoked", code: "device.revoked", holds: "the session ends within 10 s, and no other begins", test: "testbed/lab TestRevoked"},
		{name: "lies about what the device runs", holds: "**this succeeds** for this one device: reports are signed, not attested"},
	}}}
}

// elsewhereRows are about the CA, sticks and peers of the broker.
func elsewhereRows() []group {
	return []group{{"Stolen CA key", "the key that signs devices' certificates, and the network", []attack{
		{name: "makes a certificate of an enrolled device for a key of its own", holds: "not let in: the server knows each device's key", test: "testbed/lab TestIntruders: a second certificate for another's key"},
		{name: "makes a certificate of a device that never enrolled", holds: "not let in", test: "testbed/lab TestIntruders: a certificate of a device never enrolled"},
		{name: "makes a certificate of a server's name", holds: "devices follow a server's word in nothing that is not signed by director and catalog; it can be silent, and read what they say", test: "agent/identity TestWrongNameStrandsNobody"},
		{name: "comes with a certificate after a restore that forgot it", holds: "only a key that is newer than the backup is believed, once, and it is noticed", test: "fleet/enroll TestRecoverAttacks"},
		{name: "goes on after the CA was replaced", holds: "not believed", test: "fleet/enroll TestRecoverAttacks: a CA that was retired"},
	}}, {"Stolen or hostile stick", "a lockbox, a file system that it makes, no key", []attack{
		{name: "brings a stick that is older than what the device has", code: "trust.rollback", holds: "the device says `usb.older`", test: "testbed/stick TestEnds: two sticks, the older last"},
		{name: "brings a stick after its time", code: "trust.freeze", holds: "the device says `usb.expired`", test: "testbed/stick TestEnds: after its month"},
		{name: "gives a device the file of another", code: "trust.wrong_device", test: "testbed/stick TestEnds: another's file under its name"},
		{name: "makes a stick of a fleet of its own", code: "trust.signature", test: "testbed/stick TestEnds: of another fleet that says it is this one"},
		{name: "alters any byte", holds: "refused, or what is believed is the same", test: "testbed/stick TestEveryFlippedByte"},
		{name: "makes links, pipes, folders and endless files", code: "usb.gone", holds: "nothing outside of the stick is read or written", test: "agent/usb TestHostile"},
		{name: "pulls it at any moment", holds: "the old wish or the new one, whole", test: "testbed/stick TestPulledAtAnyMoment"},
		{name: "alters a receipt on its way home", code: "usb.receipt", test: "testbed/stick TestReceiptIsRefused: a changed byte"},
		{name: "reads the models on it", holds: "**this succeeds**: a lockbox is signed, not secret"},
	}}, {"Hostile peer of the broker", "a certificate of one device, or none, and packets of its own making", []attack{
		{name: "sends packets that break brokers", holds: "closed, or nothing happens; the victim hears nothing", test: "fleet/broker TestAttacks"},
		{name: "holds connections open without a word", holds: "they end", test: "fleet/broker TestSlowConnections"},
		{name: "floods", holds: "limited, then banned for a time; others are served", test: "fleet/broker TestFlood"},
		{name: "floods over many sessions", holds: "limited as one device", test: "fleet/broker TestFloodOverManySessions"},
		{name: "leaves a will for another's topic", holds: "it reaches only its own", test: "fleet/broker TestWillReachesOnlyItsOwn"},
		{name: "sends bytes that are no message on every topic", code: "wire.malformed", test: "testbed/lab TestMalformed"},
		{name: "raises the same refusal without end", holds: "it is told once and then counted", test: "agent/tally TestRefusalsAreCounted"},
	}}}
}
