package identity

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dunlin-edge/dunlin/shared/durable"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

func enrol(s *serverSim, dir, name string) (*wire.EnrolReply, error) {
	return Enrol(context.Background(), durable.OS{}, dir, s.token, name, map[string]string{"arch": "arm64"})
}

// enrolled is an identity on disk, as its server gave it.
func enrolled(t *testing.T, s *serverSim, dir string) *Identity {
	t.Helper()
	reply, err := enrol(s, dir, "meter-1")
	if err != nil {
		t.Fatal(err)
	}
	if err := Store(durable.OS{}, dir, s.token, reply); err != nil {
		t.Fatal(err)
	}
	id, err := Load(durable.OS{}, dir)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestEnrol(t *testing.T) {
	s, dir := newServer(t), filepath.Join(t.TempDir(), "var", "identity")
	if _, err := Load(durable.OS{}, dir); !errors.Is(err, ErrNotEnrolled) {
		t.Fatalf("before: %v", err)
	}
	reply, err := enrol(s, dir, "meter-1")
	if err != nil {
		t.Fatal(err)
	}
	if len(reply.CatalogRoots) != 2 || len(reply.DirectorRoots) != 1 {
		t.Errorf("roots %q, %q", reply.CatalogRoots, reply.DirectorRoots)
	}
	if _, err := Load(durable.OS{}, dir); !errors.Is(err, ErrNotEnrolled) {
		t.Fatalf("before Store: %v", err)
	}
	if err := Store(durable.OS{}, dir, s.token, reply); err != nil {
		t.Fatal(err)
	}
	id, err := Load(durable.OS{}, dir)
	if err != nil {
		t.Fatal(err)
	}
	if id.Device != "meter-1" || id.Channel != "production" || id.Server != s.URL || id.MQTT != "127.0.0.1:8883" {
		t.Errorf("identity %+v", id)
	}
	spki, err := x509.MarshalPKIXPublicKey(&id.Signer().PublicKey)
	if err != nil || len(s.keys) != 1 || string(spki) != s.keys[0] {
		t.Errorf("the key is not the one that the server was shown: %v", err)
	}
	for _, name := range []string{fileKey, fileCA, fileRecord} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
}

// A server that lies about anything that the device will trust is refused, nothing
// is enrolled, and an honest server still gets the same key.
func TestLiesAreRefused(t *testing.T) {
	foreign := newAuthority(t)
	tests := []struct {
		name  string
		lie   func(*serverSim, *wire.EnrolReply)
		is    error // fingerprints have a sentinel
		wants string
	}{
		{"another CA", func(_ *serverSim, r *wire.EnrolReply) { r.CA = inPEM(foreign.cert.Raw) }, ErrFingerprint, "CA certificate"},
		{"no CA", func(_ *serverSim, r *wire.EnrolReply) { r.CA = nil }, nil, "CA certificate"},
		{"garbage for a CA", func(_ *serverSim, r *wire.EnrolReply) { r.CA = inPEM([]byte("garbage")) }, nil, "CA certificate"},
		{"another catalog", func(_ *serverSim, r *wire.EnrolReply) { r.CatalogRoots = [][]byte{[]byte("evil root")} }, ErrFingerprint, "catalog's root"},
		{"no catalog", func(_ *serverSim, r *wire.EnrolReply) { r.CatalogRoots = nil }, nil, "catalog's root is missing"},
		{"the catalog's first root left out", func(_ *serverSim, r *wire.EnrolReply) { r.CatalogRoots = r.CatalogRoots[1:] }, ErrFingerprint, "catalog's root"},
		{"another director", func(_ *serverSim, r *wire.EnrolReply) { r.DirectorRoots = [][]byte{[]byte("evil root")} }, ErrFingerprint, "director's root"},
		{"no director", func(_ *serverSim, r *wire.EnrolReply) { r.DirectorRoots = nil }, nil, "director's root is missing"},
		{"another channel", func(_ *serverSim, r *wire.EnrolReply) { r.Channel = "dev" }, nil, `channel "dev"`},
		{"a device name that is none", func(_ *serverSim, r *wire.EnrolReply) { r.Device = "../meter" }, nil, `device "../meter"`},
		{"no device name", func(_ *serverSim, r *wire.EnrolReply) { r.Device = "" }, nil, `device ""`},
		{"no address", func(_ *serverSim, r *wire.EnrolReply) { r.MQTT = "" }, nil, `at ""`},
		{"another name than the certificate's", func(_ *serverSim, r *wire.EnrolReply) { r.Device = "meter-2" }, nil, `for device "meter-1", not "meter-2"`},
		{"a certificate for another key", func(s *serverSim, r *wire.EnrolReply) {
			spki, _ := x509.MarshalPKIXPublicKey(&foreign.key.PublicKey)
			r.Certificate = s.ca.device(s.t, "meter-1", spki)
		}, nil, "another key"},
		{"a certificate of another CA", func(s *serverSim, r *wire.EnrolReply) {
			r.Certificate = foreign.device(s.t, "meter-1", []byte(s.keys[0]))
		}, nil, "another CA"},
		{"no certificate", func(_ *serverSim, r *wire.EnrolReply) { r.Certificate = nil }, nil, "device certificate is damaged"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			s, dir := newServer(t), t.TempDir()
			s.lie = func(r *wire.EnrolReply) { tc.lie(s, r) }
			_, err := enrol(s, dir, "meter-1")
			if err == nil || !strings.Contains(err.Error(), tc.wants) || tc.is != nil && !errors.Is(err, tc.is) {
				t.Errorf("got %v, want %q", err, tc.wants)
			}
			s.notEnrolled(t, dir)
			s.lie = nil
			enrolled(t, s, dir)
			if len(s.keys) != 2 || s.keys[0] != s.keys[1] {
				t.Error("the second try shows another key")
			}
		})
	}
}

// seen is everything that the server was shown of keys.
func (s *serverSim) seen() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.keys, "")
}

// notEnrolled wants nothing but the key.
func (s *serverSim) notEnrolled(t *testing.T, dir string) {
	t.Helper()
	if _, err := Load(durable.OS{}, dir); !errors.Is(err, ErrNotEnrolled) {
		t.Errorf("load: %v", err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 || entries[0].Name() != fileKey {
		t.Errorf("left: %v, %v", entries, err)
	}
}

func TestAnswersThatAreNone(t *testing.T) {
	text := func(status int, body string) func(http.ResponseWriter) {
		return func(w http.ResponseWriter) { w.WriteHeader(status); io.WriteString(w, body) }
	}
	for _, tc := range []struct {
		name   string
		answer func(http.ResponseWriter)
		wants  string
	}{
		{"garbage", text(200, "<html>"), "read the server's answer"},
		{"nothing", text(200, ""), "read the server's answer"},
		{"another type", text(200, `{"device":7}`), "read the server's answer"},
		{"a proxy's error", text(502, "<html>"), "502 Bad Gateway"},
		{"an error without a code", text(500, "{}"), "500 Internal Server Error"},
		{"too long", text(200, `{"device":"`+strings.Repeat("x", maxReply)+`"}`), "longer than"},
		{"too long an error", text(500, strings.Repeat("x", maxReply+1)), "longer than"},
		{"cut", func(w http.ResponseWriter) {
			w.Header().Set("Content-Length", "1000")
			io.WriteString(w, "{")
		}, "unexpected EOF"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, dir := newServer(t), t.TempDir()
			s.answer = tc.answer
			if _, err := enrol(s, dir, "meter-1"); err == nil || !strings.Contains(err.Error(), tc.wants) {
				t.Errorf("got %v, want %q", err, tc.wants)
			}
			s.notEnrolled(t, dir)
		})
	}
}

func TestRefusedToken(t *testing.T) {
	s, dir := newServer(t), t.TempDir()
	s.answer = refuse("token.expired")
	var refused *ServerError
	if _, err := enrol(s, dir, "meter-1"); !errors.As(err, &refused) || refused.Code != "token.expired" || refused.Next == "" {
		t.Fatalf("got %v", err)
	}
	s.notEnrolled(t, dir)
	// The token is for one device.
	s.answer = nil
	enrolled(t, s, dir)
	if _, err := enrol(s, t.TempDir(), "meter-2"); !errors.As(err, &refused) || refused.Code != "token.spent" {
		t.Errorf("a second device: %v", err)
	}
}

// The answer is lost on its way: asked again, the same key gets the same name,
// whatever is wished the second time.
func TestInterruptedEnrolmentGoesOn(t *testing.T) {
	s, dir := newServer(t), t.TempDir()
	s.lie = func(*wire.EnrolReply) { panic(http.ErrAbortHandler) }
	if _, err := enrol(s, dir, "meter-1"); !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	s.notEnrolled(t, dir)
	s.lie = nil
	// What a killed write leaves is swept.
	if err := os.WriteFile(filepath.Join(dir, ".key.pem.tmp-01234567"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	reply, err := enrol(s, dir, "another")
	if err != nil {
		t.Fatal(err)
	}
	if reply.Device != "meter-1" || s.keys[0] != s.keys[1] {
		t.Errorf("device %q, same key: %v", reply.Device, s.keys[0] == s.keys[1])
	}
	s.notEnrolled(t, dir)
}

// Only the CA that the token names can speak for the server: nobody else with its
// certificate, which everybody may know.
func TestEnrolWithImpostor(t *testing.T) {
	now := time.Now()
	true_, foreign := newAuthority(t), newAuthority(t)
	with := func(c tls.Certificate, chain ...*x509.Certificate) tls.Certificate {
		c.Certificate = c.Certificate[:1]
		for _, x := range chain {
			c.Certificate = append(c.Certificate, x.Raw)
		}
		return c
	}
	for _, tc := range []struct {
		name string
		cert tls.Certificate
		ok   bool
	}{
		{"the server", true_.server(t, "127.0.0.1", around(now)), true},
		{"its certificate expired", true_.server(t, "127.0.0.1", around(now.Add(-5*365*24*time.Hour))), true},
		{"its certificate is not valid yet", true_.server(t, "127.0.0.1", around(now.Add(5*365*24*time.Hour))), true},
		{"another name", true_.server(t, "example.com", around(now)), false},
		{"another CA", foreign.server(t, "127.0.0.1", around(now)), false},
		{"another CA, ours sent along", with(foreign.server(t, "127.0.0.1", around(now)), true_.cert), false},
		{"another CA, both sent along", with(foreign.server(t, "127.0.0.1", around(now)), foreign.cert, true_.cert), false},
		{"our CA left out", with(true_.server(t, "127.0.0.1", around(now))), false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newServerAs(t, true_, tc.cert)
			sum := sha256.Sum256(true_.cert.Raw)
			s.token.CA = sum[:]
			_, err := enrol(s, t.TempDir(), "meter-1")
			if (err == nil) != tc.ok {
				t.Errorf("enrol: %v", err)
			}
			if !tc.ok && s.seen() != "" {
				t.Error("an impostor was told the token's secret")
			}
		})
	}
}

// dial makes a mutual TLS connection to a server with that certificate.
func dial(t *testing.T, id *Identity, cert tls.Certificate, trusted bool) (device string, err error) {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AddCert(id.ca)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: roots,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	saw := make(chan string, 1)
	go func() {
		defer close(saw)
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		tc := c.(*tls.Conn)
		if tc.Handshake() == nil {
			saw <- tc.ConnectionState().PeerCertificates[0].Subject.CommonName
		}
	}()
	c, err := tls.Dial("tcp", l.Addr().String(), id.TLS("127.0.0.1", func() bool { return trusted }))
	if err == nil {
		device = <-saw
		c.Close()
	}
	for range saw {
	}
	return device, err
}

func TestTLS(t *testing.T) {
	s := newServer(t)
	id, now, foreign := enrolled(t, s, t.TempDir()), time.Now(), newAuthority(t)
	for _, tc := range []struct {
		name               string
		cert               tls.Certificate
		trusted, untrusted bool // accepted with such a clock
	}{
		{"the server", s.ca.server(t, "127.0.0.1", around(now)), true, true},
		{"expired", s.ca.server(t, "127.0.0.1", around(now.Add(-48*time.Hour))), false, true},
		{"expired for years", s.ca.server(t, "127.0.0.1", around(now.Add(-10*365*24*time.Hour))), false, true},
		{"not valid yet", s.ca.server(t, "127.0.0.1", around(now.Add(48*time.Hour))), false, true},
		{"another name", s.ca.server(t, "127.0.0.2", around(now)), false, false},
		{"another CA", foreign.server(t, "127.0.0.1", around(now)), false, false},
		{"another CA, expired", foreign.server(t, "127.0.0.1", around(now.Add(-48*time.Hour))), false, false},
		{"a device in the server's place", s.deviceAsServer(t), false, false},
	} {
		for _, trusted := range []bool{true, false} {
			want := tc.untrusted
			if trusted {
				want = tc.trusted
			}
			device, err := dial(t, id, tc.cert, trusted)
			if (err == nil) != want || want && device != "meter-1" {
				t.Errorf("%s, clock trusted %v: the server sees %q, %v", tc.name, trusted, device, err)
			}
		}
	}
}

// deviceAsServer is another device's certificate, of the same CA and even with
// the server's address in it: it is for clients.
func (s *serverSim) deviceAsServer(t *testing.T) tls.Certificate {
	t.Helper()
	key := newKey(t)
	c := template("meter-2", around(time.Now()))
	c.ExtKeyUsage, c.IPAddresses = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, []net.IP{net.IPv4(127, 0, 0, 1)}
	return tls.Certificate{Certificate: [][]byte{s.ca.sign(t, c, &key.PublicKey), s.ca.cert.Raw}, PrivateKey: key}
}

// Every file missing, damaged, or of another device: an error that says which,
// and nothing is changed. The record alone says whether there is an identity.
func TestDamagedIdentity(t *testing.T) {
	s, other := newServer(t), newServer(t)
	dir, theirs := t.TempDir(), t.TempDir()
	enrolled(t, s, dir)
	if reply, err := enrol(other, theirs, "meter-2"); err != nil {
		t.Fatal(err)
	} else if err := Store(durable.OS{}, theirs, other.token, reply); err != nil {
		t.Fatal(err)
	}
	says := map[string]string{fileKey: "key", fileCA: "CA", fileRecord: ""}
	foreign := map[string]string{fileKey: "another CA", fileCA: "another CA", fileRecord: `for device "meter-1", not "meter-2"`}
	n := 0
	for name, what := range says {
		good, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		another, err := os.ReadFile(filepath.Join(theirs, name))
		if err != nil {
			t.Fatal(err)
		}
		for kind, bad := range map[string][]byte{
			"missing": nil, "empty": {}, "cut": good[:len(good)/2], "cut at the end": good[:len(good)-30], "garbage": []byte("not what it was"),
			"zeros": make([]byte, len(good)), "null": []byte("null"), "too long": append(slices.Clone(good), make([]byte, maxFile)...), "another's": another,
		} {
			n++
			path := filepath.Join(dir, name)
			if err := os.WriteFile(path, bad, 0o600); err != nil {
				t.Fatal(err)
			}
			if kind == "missing" {
				os.Remove(path)
			}
			_, err := Load(durable.OS{}, dir)
			wants := what
			if kind == "another's" {
				wants = foreign[name]
			}
			switch {
			case name == fileRecord && kind == "missing":
				if !errors.Is(err, ErrNotEnrolled) {
					t.Errorf("%s %s: %v", name, kind, err)
				}
			case err == nil || errors.Is(err, ErrNotEnrolled) || !strings.Contains(err.Error(), wants) && !strings.Contains(err.Error(), name):
				t.Errorf("%s %s: %v, want %q", name, kind, err, wants)
			}
			if now, err := os.ReadFile(path); kind != "missing" && (err != nil || !bytes.Equal(now, bad)) {
				t.Errorf("%s %s: Load changed it: %v", name, kind, err)
			}
			if err := os.WriteFile(path, good, 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := Load(durable.OS{}, dir); err != nil {
				t.Fatalf("%s mended: %v", name, err)
			}
		}
	}
	t.Logf("%d damaged files", n)
}

// FuzzLoad takes any record.
func FuzzLoad(f *testing.F) {
	f.Add([]byte(`{"number":1,"device":"meter-1"}`))
	f.Add([]byte(`{"number":2}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, fileRecord), b, 0o600); err != nil {
			t.Fatal(err)
		}
		if id, err := Load(durable.OS{}, dir); err == nil {
			t.Fatalf("an identity without a key: %+v", id)
		}
	})
}
