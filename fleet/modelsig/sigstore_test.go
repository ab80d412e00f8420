package modelsig

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"maps"
	"strings"
	"testing"
	"time"

	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protodsse "github.com/sigstore/protobuf-specs/gen/pb-go/dsse"
	rekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/testing/ca"
	"github.com/sigstore/sigstore-go/pkg/tlog"
	"google.golang.org/protobuf/encoding/protojson"
)

const (
	subjectName = "release@vendor.example"
	issuerURL   = "https://accounts.vendor.example"
)

// sigstore is a certificate authority and a log of our own, that vouch for whom
// the test says.
type sigstore struct{ *ca.VirtualSigstore }

func newSigstore(t testing.TB) sigstore {
	t.Helper()
	v, err := ca.NewVirtualSigstore()
	if err != nil {
		t.Fatal(err)
	}
	return sigstore{v}
}

// trustedRoot is what people would be given; with ctLogs, certificates must have
// been promised to a log of certificates, and these never were.
func (s sigstore) trustedRoot(t testing.TB, ctLogs bool) []byte {
	t.Helper()
	ct := map[string]*root.TransparencyLog{}
	if ctLogs {
		ct = byRawID(t, s.CTLogs())
	}
	r, err := root.NewTrustedRoot(root.TrustedRootMediaType01, s.FulcioCertificateAuthorities(), ct, s.TimestampingAuthorities(), byRawID(t, s.RekorLogs()))
	if err != nil {
		t.Fatal(err)
	}
	b, err := r.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// byRawID gives logs the id that a file carries: the helper has it in hex.
func byRawID(t testing.TB, logs map[string]*root.TransparencyLog) map[string]*root.TransparencyLog {
	t.Helper()
	for _, l := range logs {
		id, err := hex.DecodeString(string(l.ID))
		if err != nil {
			t.Fatal(err)
		}
		l.ID = id
	}
	return logs
}

func (s sigstore) policy(t testing.TB, subject, issuer string, ctLogs bool) *Policy {
	t.Helper()
	id, err := NewIdentity(subject, issuer, s.trustedRoot(t, ctLogs))
	if err != nil {
		t.Fatal(err)
	}
	return &Policy{Identity: id}
}

// sign makes a keyless signature and its log entry; change may spoil it.
func (s sigstore) sign(t testing.TB, content map[string]string, change func(*protobundle.Bundle)) []byte {
	t.Helper()
	payload, err := json.Marshal(newStatement("gate", filesOf(content)))
	if err != nil {
		t.Fatal(err)
	}
	e, err := s.AttestAtTime(subjectName, issuerURL, payload, time.Now().Add(5*time.Minute), true)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := e.VerificationContent()
	if err != nil {
		t.Fatal(err)
	}
	signed, err := e.SignatureContent()
	if err != nil {
		t.Fatal(err)
	}
	entries, err := e.TlogEntries()
	if err != nil {
		t.Fatal(err)
	}
	entry := s.complete(t, entries[0].TransparencyLogEntry())
	b := &protobundle.Bundle{
		MediaType: bundleV03,
		VerificationMaterial: &protobundle.VerificationMaterial{
			Content:     &protobundle.VerificationMaterial_Certificate{Certificate: &protocommon.X509Certificate{RawBytes: cert.Certificate().Raw}},
			TlogEntries: []*rekor.TransparencyLogEntry{entry},
		},
		Content: &protobundle.Bundle_DsseEnvelope{DsseEnvelope: &protodsse.Envelope{
			Payload: payload, PayloadType: payloadType, Signatures: []*protodsse.Signature{{Sig: signed.Signature()}},
		}},
	}
	if change != nil {
		change(b)
	}
	raw, err := protojson.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// complete adds to an entry what the helper keeps for itself: its kind and the
// log's promise.
func (s sigstore) complete(t testing.TB, e *rekor.TransparencyLogEntry) *rekor.TransparencyLogEntry {
	t.Helper()
	promise, err := s.RekorSignPayload(tlog.RekorPayload{
		Body: base64.StdEncoding.EncodeToString(e.CanonicalizedBody), IntegratedTime: e.IntegratedTime, LogIndex: e.LogIndex, LogID: hex.EncodeToString(e.LogId.KeyId),
	})
	if err != nil {
		t.Fatal(err)
	}
	e.KindVersion = &rekor.KindVersion{Kind: "dsse", Version: "0.0.1"}
	e.InclusionPromise = &rekor.InclusionPromise{SignedEntryTimestamp: promise}
	return e
}

func TestKeyless(t *testing.T) {
	ours, theirs := newSigstore(t), newSigstore(t)
	good := ours.policy(t, subjectName, issuerURL, false)
	another := func(change func(b *protobundle.Bundle, o *protobundle.Bundle)) func(*protobundle.Bundle) {
		return func(b *protobundle.Bundle) {
			o := &protobundle.Bundle{}
			if err := protojson.Unmarshal(ours.sign(t, map[string]string{"x": "other"}, nil), o); err != nil {
				t.Fatal(err)
			}
			change(b, o)
		}
	}
	for _, c := range []struct {
		name   string
		from   sigstore
		policy *Policy
		change func(*protobundle.Bundle)
		want   string
	}{
		{name: "right", from: ours, policy: good},
		{name: "other subject", from: ours, policy: ours.policy(t, "intern@vendor.example", issuerURL, false), want: CodeIdentity},
		{name: "subject as a part", from: ours, policy: ours.policy(t, strings.TrimSuffix(subjectName, "e"), issuerURL, false), want: CodeIdentity},
		{name: "other issuer", from: ours, policy: ours.policy(t, subjectName, "https://accounts.evil.example", false), want: CodeIdentity},
		{name: "vouched for by others", from: theirs, policy: good, want: CodeSignature},
		{name: "not promised to a log of certificates", from: ours, policy: ours.policy(t, subjectName, issuerURL, true), want: CodeSignature},
		{name: "not logged", from: ours, policy: good, change: func(b *protobundle.Bundle) { b.VerificationMaterial.TlogEntries = nil }, want: CodeSignature},
		{name: "logged by others", from: ours, policy: good, change: func(b *protobundle.Bundle) {
			o := &protobundle.Bundle{}
			if err := protojson.Unmarshal(theirs.sign(t, content, nil), o); err != nil {
				t.Fatal(err)
			}
			b.VerificationMaterial.TlogEntries = o.VerificationMaterial.TlogEntries
		}, want: CodeSignature},
		{name: "log entry of another signature", from: ours, policy: good, change: another(func(b, o *protobundle.Bundle) {
			b.VerificationMaterial.TlogEntries = o.VerificationMaterial.TlogEntries
		}), want: CodeSignature},
		{name: "certificate of another signature", from: ours, policy: good, change: another(func(b, o *protobundle.Bundle) {
			b.VerificationMaterial.Content = o.VerificationMaterial.Content
		}), want: CodeSignature},
		{name: "statement of another signature", from: ours, policy: good, change: another(func(b, o *protobundle.Bundle) {
			b.GetDsseEnvelope().Payload = o.GetDsseEnvelope().Payload
		}), want: CodeSignature},
		{name: "time of the log changed", from: ours, policy: good, change: func(b *protobundle.Bundle) {
			b.VerificationMaterial.TlogEntries[0].IntegratedTime += 60
		}, want: CodeSignature},
		{name: "time of the log without its promise", from: ours, policy: good, change: func(b *protobundle.Bundle) {
			b.VerificationMaterial.TlogEntries[0].InclusionPromise = nil
		}, want: CodeSignature},
		{name: "proof altered", from: ours, policy: good, change: func(b *protobundle.Bundle) {
			b.VerificationMaterial.TlogEntries[0].InclusionProof.RootHash[0] ^= 1
		}, want: CodeSignature},
		{name: "checkpoint altered", from: ours, policy: good, change: func(b *protobundle.Bundle) {
			c := b.VerificationMaterial.TlogEntries[0].InclusionProof.Checkpoint
			c.Envelope = strings.Replace(c.Envelope, "\n42\n", "\n43\n", 1) + " "
		}, want: CodeSignature},
		{name: "proof missing", from: ours, policy: good, change: func(b *protobundle.Bundle) {
			b.VerificationMaterial.TlogEntries[0].InclusionProof = nil
		}, want: CodeMalformed},
		{name: "same entry twice", from: ours, policy: good, change: func(b *protobundle.Bundle) {
			m := b.VerificationMaterial
			m.TlogEntries = append(m.TlogEntries, m.TlogEntries[0])
		}, want: CodeSignature},
	} {
		t.Run(c.name, func(t *testing.T) {
			st, err := VerifyFolder(folder(t, content, c.from.sign(t, content, c.change)), "", c.policy, now)
			if code(err) != c.want {
				t.Fatalf("%v, wanted %q", err, c.want)
			}
			if err == nil && (st.Method != MethodSigstore || st.Signer != subjectName+" of "+issuerURL) {
				t.Errorf("statement %+v", st)
			}
		})
	}
	t.Run("file altered", func(t *testing.T) {
		c := maps.Clone(content)
		c["model.tflite"] = "weightz"
		if _, err := VerifyFolder(folder(t, c, ours.sign(t, content, nil)), "", good, now); code(err) != CodeDigest {
			t.Error(err)
		}
	})
	t.Run("base64 that only one of two readers takes", func(t *testing.T) {
		raw := ours.sign(t, content, nil)
		url := bytes.Replace(raw, []byte(`"payload":"`), []byte(`"payload":"`+base64.RawURLEncoding.EncodeToString([]byte("  \xff"))), 1)
		if _, err := Verify(url, good, now); code(err) != CodeMalformed {
			t.Error(err)
		}
	})
	t.Run("by a key", func(t *testing.T) {
		s, p := newSigner(t)
		if _, err := Verify(sign(t, s, content), good, now); code(err) != CodeIdentity {
			t.Error(err)
		}
		if _, err := Verify(ours.sign(t, content, nil), p, now); code(err) != CodeIdentity {
			t.Error(err)
		}
	})
}

// FuzzKeyless mutates keyless signatures, which a library reads.
func FuzzKeyless(f *testing.F) {
	s := newSigstore(f)
	p := s.policy(f, subjectName, issuerURL, false)
	raw := s.sign(f, content, nil)
	want, err := Verify(raw, p, now)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Fuzz(func(t *testing.T, raw []byte) {
		got, err := Verify(raw, p, now)
		if err == nil && !maps.Equal(got.files, want.files) {
			t.Errorf("passed: %v", got.files)
		}
	})
}
