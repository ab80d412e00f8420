package identity

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/dunlin-edge/dunlin/shared/durable"
	"github.com/dunlin-edge/dunlin/shared/durable/crashfs"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

// known is what a server knows of a device's identity.
type known struct {
	current, next []byte // SPKI
	nextCert      []byte // PEM
	cert          []byte // DER of current's
}

// renewals is a server that renews as ours does; both-ends tests are in
// testbed/journeys.
type renewals struct {
	*serverSim
	known
	answer func(http.ResponseWriter) // when set, instead
}

func spki(t testing.TB, k *ecdsa.PrivateKey) []byte {
	t.Helper()
	b, err := x509.MarshalPKIXPublicKey(&k.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// newRenewals returns a server and the file system of a device that it enrolled.
func newRenewals(t *testing.T) (*renewals, func() *crashfs.FS) {
	t.Helper()
	s := &renewals{serverSim: newServer(t)}
	renew := httptest.NewUnstartedServer(http.HandlerFunc(s.renew))
	renew.TLS, renew.Config.ErrorLog = s.TLS.Clone(), quiet
	renew.StartTLS()
	t.Cleanup(renew.Close)
	build := func() *crashfs.FS {
		f := crashfs.New()
		s.keys, s.first = nil, nil
		reply, err := Enrol(context.Background(), f, crashDir, s.token, crashName, nil)
		if err != nil {
			t.Fatal(err)
		}
		moved := *s.token
		moved.Server = renew.URL
		if err := Store(f, crashDir, &moved, reply); err != nil {
			t.Fatal(err)
		}
		f.Settle()
		id := s.load(f)
		s.known = known{current: spki(t, id.current.key), cert: id.current.cert.Raw}
		return f
	}
	return s, build
}

func (s *renewals) load(f durable.FS) *Identity {
	s.t.Helper()
	id, err := Load(f, crashDir)
	if err != nil {
		s.t.Fatal(err)
	}
	return id
}

func (s *renewals) renew(w http.ResponseWriter, r *http.Request) {
	var req wire.RenewRequest
	if err := json.NewDecoder(r.Body).Decode(&req); err != nil || r.URL.Path != "/v1/renew" || req.Check() != nil {
		s.t.Errorf("%s: %v, %v", r.URL.Path, err, req.Check())
	}
	proof := sha256.Sum256(wire.RenewProof(req.Device, req.Certificate, req.PublicKey))
	signed := func(key, sig []byte) bool {
		pub, err := x509.ParsePKIXPublicKey(key)
		return err == nil && ecdsa.VerifyASN1(pub.(*ecdsa.PublicKey), proof[:], sig)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	cert := sha256.Sum256(s.cert)
	switch {
	case s.answer != nil:
		s.answer(w)
	case !signed(s.current, req.Old):
		refuse(codeRefused)(w)
	case !signed(req.PublicKey, req.New) || !bytes.Equal(cert[:], req.Certificate):
		s.t.Error("the request is not signed by the next key, or names another certificate")
	default:
		if !bytes.Equal(s.next, req.PublicKey) {
			s.next, s.nextCert = req.PublicKey, s.ca.device(s.t, req.Device, req.PublicKey)
		}
		json.NewEncoder(w).Encode(wire.RenewReply{Device: req.Device, Certificate: s.nextCert})
	}
}

// session is a handshake and, when the server knows the key, a welcome.
func (s *renewals) session(id *Identity) bool {
	shown, err := x509.ParseCertificate(id.show().Certificate[0])
	if err != nil {
		s.t.Fatal(err)
	}
	key, err := x509.MarshalPKIXPublicKey(shown.PublicKey)
	if err != nil {
		s.t.Fatal(err)
	}
	s.mu.Lock()
	switch {
	case bytes.Equal(key, s.next):
		s.known = known{current: key, cert: shown.Raw}
	case !bytes.Equal(key, s.current):
		s.mu.Unlock()
		return false
	}
	s.mu.Unlock() // a welcome may write, and be cut there
	id.Welcomed()
	return true
}

// whole is a renewal from the request to the rename. done is called when the
// server has given the certificate, and when the pair is the device's.
func (s *renewals) whole(f durable.FS, done func()) error {
	id, err := Load(f, crashDir)
	if err != nil {
		return err
	}
	if err := id.Renew(context.Background(), untrusted); err != nil {
		return err
	}
	done()
	if !s.session(id) {
		return errors.New("the next pair is refused")
	}
	renewed, err := id.Settle()
	if err == nil && !renewed {
		err = errors.New("not renewed")
	}
	done()
	return err
}

func untrusted() bool { return false }

// working wants that the device gets a session with what its disk holds, that it
// can renew from there, and that in the end one pair is left.
func (s *renewals) working(f *crashfs.FS) error {
	before := s.known
	defer func() { s.known = before }() // the next crash is another world
	// The agent opens the clock first, which sweeps.
	if err := durable.Sweep(f, "identity.sweep", crashDir); err != nil {
		return err
	}
	id, err := Load(f, crashDir)
	if err != nil {
		return err
	}
	first := s.session(id)
	if !first && !s.session(id) { // the second try is with the other pair
		return errors.New("the server knows neither of its pairs")
	}
	if _, err := id.Settle(); err != nil {
		return err
	}
	if err := s.whole(f, func() {}); err != nil {
		return err
	}
	if id, err = Load(f, crashDir); err != nil {
		return err
	}
	if id.next != nil || !bytes.Equal(spki(s.t, id.current.key), s.current) {
		return errors.New("the pair that is left is not the one that the server knows")
	}
	for _, name := range f.Names() {
		if strings.Contains(name, "next") {
			return fmt.Errorf("%s is left over", name)
		}
	}
	return nil
}

func TestRenew(t *testing.T) {
	s, build := newRenewals(t)
	f := build()
	id := s.load(f)
	old := id.Signer()
	r := id.Renewal()
	life := r.Expires.Sub(r.From)
	if r.Ready || r.Due.Before(r.From.Add(life*2/3)) || r.Due.After(r.From.Add(life*3/4)) {
		t.Errorf("%+v", r)
	}
	if err := id.Renew(t.Context(), untrusted); err != nil {
		t.Fatal(err)
	}
	if r := id.Renewal(); !r.Ready || r.Refused || id.Signer() != old {
		t.Errorf("renewed, no session yet: %+v", r)
	}
	id.UseNext()
	if id.Signer() == old {
		t.Error("the next key does not sign")
	}
	if !s.session(id) {
		t.Fatal("refused")
	}
	if renewed, err := id.Settle(); err != nil || !renewed {
		t.Fatal(renewed, err)
	}
	if renewed, err := id.Settle(); err != nil || renewed {
		t.Error("settled twice", err)
	}
	if r := id.Renewal(); r.Ready || id.Signer() == old || !bytes.Equal(spki(t, s.load(f).Signer()), s.current) {
		t.Errorf("%+v", r)
	}
}

// Each hardship of a renewal ends with the device known to the server by one pair.
func TestRenewHardships(t *testing.T) {
	for name, hardship := range map[string]func(*testing.T, *renewals, *crashfs.FS){
		"refused, then not": func(t *testing.T, s *renewals, f *crashfs.FS) {
			s.answer = refuse(CodePending)
			id := s.load(f)
			var refused *ServerError
			if err := id.Renew(t.Context(), untrusted); !errors.As(err, &refused) || refused.Code != CodePending {
				t.Fatal(err)
			}
			key := id.next.key
			s.answer = nil
			if id = s.load(f); id.next == nil || !id.next.key.Equal(key) {
				t.Error("after a restart it asks for another key")
			}
		},
		"a welcome of the old session is none of the next": func(t *testing.T, s *renewals, f *crashfs.FS) {
			id := s.load(f)
			s.session(id)
			if err := id.Renew(t.Context(), untrusted); err != nil {
				t.Fatal(err)
			}
			id.UseNext()
			id.Welcomed()
			if renewed, err := id.Settle(); renewed || err != nil {
				t.Fatal("the pair has had no session", err)
			}
		},
		"the server forgot the next pair": func(t *testing.T, s *renewals, f *crashfs.FS) {
			before := s.known
			id := s.load(f)
			if err := id.Renew(t.Context(), untrusted); err != nil {
				t.Fatal(err)
			}
			s.known = before
			if s.session(id) || !s.session(id) {
				t.Fatal("the next pair is taken, or the current one is not")
			}
			if renewed, err := id.Settle(); renewed || err != nil || !id.Renewal().Refused {
				t.Fatal(renewed, err, id.Renewal())
			}
			if err := id.Renew(t.Context(), untrusted); err != nil {
				t.Fatal(err)
			}
			if r := id.Renewal(); !r.Ready || r.Refused || !s.session(id) {
				t.Fatal("asked again, it is still refused")
			}
		},
		"the certificate of the next pair expired before its welcome": func(t *testing.T, s *renewals, f *crashfs.FS) {
			id := s.load(f)
			if err := id.Renew(t.Context(), untrusted); err != nil {
				t.Fatal(err)
			}
			s.session(id) // the server has taken it, the welcome is lost
			next := id.next.key
			id = s.load(f)
			if err := id.Renew(t.Context(), untrusted); err != nil {
				t.Fatal(err)
			}
			if !id.current.key.Equal(next) || !id.Renewal().Ready {
				t.Error("the next key is not the one that renews")
			}
		},
		"a certificate for another key": func(t *testing.T, s *renewals, f *crashfs.FS) {
			s.answer = func(w http.ResponseWriter) {
				json.NewEncoder(w).Encode(wire.RenewReply{Device: crashName, Certificate: s.ca.device(t, crashName, spki(t, newKey(t)))})
			}
			if err := s.load(f).Renew(t.Context(), untrusted); err == nil || !strings.Contains(err.Error(), "another key") {
				t.Error(err)
			}
			s.answer = nil
		},
		"a certificate of another CA": func(t *testing.T, s *renewals, f *crashfs.FS) {
			id := s.load(f)
			s.answer = func(w http.ResponseWriter) {
				json.NewEncoder(w).Encode(wire.RenewReply{Device: crashName, Certificate: newAuthority(t).device(t, crashName, spki(t, id.next.key))})
			}
			if err := id.Renew(t.Context(), untrusted); err == nil || !strings.Contains(err.Error(), "another CA") {
				t.Error(err)
			}
			s.answer = nil
		},
		"next.pem is damaged": func(t *testing.T, s *renewals, f *crashfs.FS) {
			if err := durable.WriteFile(f, "test", crashDir+"/"+fileNext, []byte("-----BEGIN"), 0o600); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, build := newRenewals(t)
			f := build()
			hardship(t, s, f)
			if err := s.working(f); err != nil {
				t.Error(err)
			}
		})
	}
}

// explore crashes a renewal.
func (s *renewals) explore(x crashfs.Explorer, build func() *crashfs.FS) (crashfs.Result, error) {
	f := build()
	x.Check = func(after *crashfs.FS, done int) error {
		if id, err := Load(after, crashDir); err == nil && done >= 2 && !bytes.Equal(spki(s.t, id.current.key), s.current) {
			return errors.New("renewed, and the old pair is back")
		}
		return s.working(after)
	}
	return x.Run(f, s.whole)
}

func TestCrashesInRenewal(t *testing.T) {
	s, build := newRenewals(t)
	r, err := s.explore(crashfs.Explorer{Limit: 128}, build)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("1 operation, %d crash points, %d states (%d points sampled)", len(r.Labels)+1, r.States, r.Sampled)
}

// renewHarmless are steps that may be missing, with the reason.
var renewHarmless = map[string]string{
	"identity.settled.syncdir": "a next.pem of the current key says nothing, and is not read",
	"identity.next.rename":     "another key is asked for, in place of the one that the server was shown",
	"identity.next.sync":       "as above",
	"identity.next.syncdir":    "as above",
}

// Leaving out any sync or rename of a renewal is found.
func TestEveryMissingSyncOfRenewalIsFound(t *testing.T) {
	s, build := newRenewals(t)
	clean, err := s.explore(crashfs.Explorer{Limit: 1}, build)
	if err != nil {
		t.Fatal(err)
	}
	tried := 0
	for _, label := range slices.Compact(slices.Sorted(slices.Values(clean.Labels))) {
		verb := label[strings.LastIndex(label, "."):]
		if verb != ".sync" && verb != ".syncdir" && verb != ".rename" {
			continue
		}
		tried++
		_, err := s.explore(crashfs.Explorer{Limit: 32, Before: func(_ *crashfs.FS, st crashfs.Step) error {
			if st.Label == label {
				return crashfs.ErrSkip
			}
			return nil
		}}, build)
		var v *crashfs.Violation
		if _, allowed := renewHarmless[label]; errors.As(err, &v) == allowed {
			t.Errorf("without %s: %v; listed as harmless: %v", label, err, allowed)
		}
	}
	t.Logf("%d mutants, %d harmless, the others found", tried, len(renewHarmless))
}

// Any step may fail: the renewal says so, and the device is known and can renew.
func TestEveryStepOfRenewalMayFail(t *testing.T) {
	s, build := newRenewals(t)
	steps := 0
	for i := 0; ; i++ {
		f, n, label := build(), -1, ""
		f.Before = func(st crashfs.Step) error {
			if n++; n == i {
				label = st.Label
				return errors.New("no space left on device")
			}
			return nil
		}
		err := s.whole(f, func() {})
		f.Before = nil
		if label == "" {
			break
		}
		steps++
		if err == nil {
			t.Errorf("step %d %s fails, and nobody says so", i, label)
		}
		if err := s.working(f); err != nil {
			t.Errorf("step %d %s fails: %v", i, label, err)
		}
	}
	t.Logf("%d failing steps", steps)
}
