package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/dunlin-edge/dunlin/shared/wire"
)

// authority is a CA of a test's own making.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// validity of a certificate.
type validity struct{ from, to time.Time }

func around(now time.Time) validity { return validity{now.Add(-time.Hour), now.Add(time.Hour)} }

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{key: newKey(t)}
	v := validity{time.Now().Add(-20 * 365 * 24 * time.Hour), time.Now().Add(20 * 365 * 24 * time.Hour)}
	tmpl := template("ca", v)
	tmpl.IsCA, tmpl.BasicConstraintsValid, tmpl.KeyUsage = true, true, x509.KeyUsageCertSign
	a.cert = tmpl
	a.cert = parse(t, a.sign(t, tmpl, &a.key.PublicKey))
	return a
}

func template(name string, v validity) *x509.Certificate {
	return &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: v.from, NotAfter: v.to, KeyUsage: x509.KeyUsageDigitalSignature}
}

func (a *authority) sign(t *testing.T, c *x509.Certificate, pub *ecdsa.PublicKey) []byte {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, c, a.cert, pub, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func parse(t *testing.T, der []byte) *x509.Certificate {
	t.Helper()
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// server issues a server's certificate with the CA behind it.
func (a *authority) server(t *testing.T, name string, v validity) tls.Certificate {
	t.Helper()
	key := newKey(t)
	c := template(name, v)
	c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	if ip := net.ParseIP(name); ip != nil {
		c.IPAddresses = []net.IP{ip}
	} else {
		c.DNSNames = []string{name}
	}
	return tls.Certificate{Certificate: [][]byte{a.sign(t, c, &key.PublicKey), a.cert.Raw}, PrivateKey: key}
}

// device issues a device's certificate.
func (a *authority) device(t *testing.T, id string, spki []byte) []byte {
	t.Helper()
	pub, err := x509.ParsePKIXPublicKey(spki)
	if err != nil {
		t.Fatal(err)
	}
	c := template(id, around(time.Now()))
	c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	return inPEM(a.sign(t, c, pub.(*ecdsa.PublicKey)))
}

func inPEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// serverSim is an enrolment server that can be made to lie. The both-ends tests
// with the real one are in testbed/lab.
type serverSim struct {
	*httptest.Server
	t     *testing.T
	ca    *authority
	token *wire.EnrolToken

	mu   sync.Mutex
	keys []string // public keys that asked
	// The token is good for one key, which gets the same answer each time.
	first *wire.EnrolReply
	// lie changes the answer.
	lie func(*wire.EnrolReply)
	// answer, when set, is sent instead.
	answer func(http.ResponseWriter)
}

func newServer(t *testing.T) *serverSim {
	t.Helper()
	ca := newAuthority(t)
	return newServerAs(t, ca, ca.server(t, "127.0.0.1", around(time.Now())))
}

// newServerAs shows another certificate than it should.
func newServerAs(t *testing.T, ca *authority, cert tls.Certificate) *serverSim {
	t.Helper()
	s := &serverSim{t: t, ca: ca}
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(s.enrol))
	s.Config.ErrorLog = quiet
	s.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	s.StartTLS()
	t.Cleanup(s.Close)
	sum := func(b []byte) []byte { h := sha256.Sum256(b); return h[:] }
	s.token = &wire.EnrolToken{
		Server: s.URL, ID: "tok_1", Secret: make([]byte, 32), CA: sum(s.ca.cert.Raw),
		CatalogRoot: sum([]byte("catalog root")), DirectorRoot: sum([]byte("director root")), Channel: "production",
	}
	return s
}

func (s *serverSim) enrol(w http.ResponseWriter, r *http.Request) {
	var req wire.EnrolRequest
	if err := json.NewDecoder(r.Body).Decode(&req); err != nil || r.URL.Path != "/v1/enrol" {
		s.t.Errorf("%s: %v", r.URL.Path, err)
	}
	pub, err := x509.ParsePKIXPublicKey(req.PublicKey)
	sum := sha256.Sum256(wire.EnrolProof(req.Token, req.PublicKey))
	if err != nil || !ecdsa.VerifyASN1(pub.(*ecdsa.PublicKey), sum[:], req.Signature) {
		s.t.Errorf("the proof of possession is wrong: %v", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys = append(s.keys, string(req.PublicKey))
	if s.answer != nil {
		s.answer(w)
		return
	}
	if s.first == nil {
		s.first = s.issue(req.Device, req.PublicKey)
	}
	if s.keys[0] != string(req.PublicKey) {
		refuse("token.spent")(w)
		return
	}
	reply := *s.first
	if s.lie != nil {
		s.lie(&reply)
	}
	json.NewEncoder(w).Encode(reply)
}

func (s *serverSim) issue(device string, spki []byte) *wire.EnrolReply {
	if device == "" {
		device = "d-0123456789"
	}
	return &wire.EnrolReply{
		Device: device, Channel: "production", Certificate: s.ca.device(s.t, device, spki), CA: inPEM(s.ca.cert.Raw), MQTT: "127.0.0.1:8883",
		CatalogRoots: [][]byte{[]byte("catalog root"), []byte("second")}, DirectorRoots: [][]byte{[]byte("director root")},
	}
}

// refuse answers as the server does when it says no.
func refuse(code string) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) {
		w.WriteHeader(http.StatusForbidden)
		json.NewEncoder(w).Encode(&ServerError{Code: code, Detail: "the token was used", Next: "make another one"})
	}
}
