package identity

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/dunlin-edge/dunlin/shared/durable"
	"github.com/dunlin-edge/dunlin/shared/durable/crashfs"
	"github.com/dunlin-edge/dunlin/shared/trust"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

// carry brings a request to the server and its answer back.
func carry(t testing.TB, s *serverSim, r *wire.EnrolRequest) []byte {
	t.Helper()
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := s.Client().Post(s.URL+"/v1/enrol", "application/json", bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer
}

// TestCarriedEnrolmentCrashes cuts the power after every step of an enrolment that
// is carried: the device has an identity, whole, or none and goes on with the key
// that it asked with.
func TestCarriedEnrolmentCrashes(t *testing.T) {
	s := newServer(t)
	var asked, answer []byte
	install := func(f durable.FS, token *wire.EnrolToken, b []byte) error {
		reply, err := Answered(f, crashDir, token, b)
		if err != nil {
			return err
		}
		return errors.Join(trust.Install(f, trustDir, reply.CatalogRoots, reply.DirectorRoots), Store(f, crashDir, token, reply), Forget(f, crashDir))
	}
	check := func(after *crashfs.FS, done int) error {
		_, err := Load(after, crashDir)
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, ErrNotEnrolled):
			return fmt.Errorf("neither enrolled nor not: %w", err)
		case done == 0:
			_, err = Ask(after, crashDir, s.token, crashName, nil)
			return err
		case done == 2:
			return errors.New("the identity is gone")
		}
		token, r, err := Asked(after, crashDir)
		if err != nil {
			return fmt.Errorf("what was asked is forgotten: %w", err)
		}
		if !bytes.Equal(r.PublicKey, asked) {
			return errors.New("another key than the one that asked")
		}
		if answer == nil {
			return nil
		}
		if err := install(after, token, answer); err != nil {
			return fmt.Errorf("the answer is not taken afterwards: %w", err)
		}
		_, err = Load(after, crashDir)
		return err
	}
	r, err := (&crashfs.Explorer{Check: check}).Run(crashfs.New(), func(f durable.FS, done func()) error {
		r, err := Ask(f, crashDir, s.token, crashName, nil)
		if err != nil {
			return err
		}
		asked = r.PublicKey
		done()
		answer = carry(t, s, r)
		if err := install(f, s.token, answer); err != nil {
			return err
		}
		done()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d steps, %d crash states", len(r.Labels), r.States)
}

// TestAnswerOfAStick wants an answer to be compared with the token like one from
// the network.
func TestAnswerOfAStick(t *testing.T) {
	for name, c := range map[string]struct {
		lie    func(*wire.EnrolReply)
		answer func([]byte) []byte
		want   error // nil: any
	}{
		"another root": {lie: func(r *wire.EnrolReply) { r.DirectorRoots[0] = []byte("{}") }, want: ErrFingerprint},
		"another CA":   {lie: func(r *wire.EnrolReply) { r.CA = inPEM(newAuthority(t).cert.Raw) }, want: ErrFingerprint},
		"no roots":     {lie: func(r *wire.EnrolReply) { r.CatalogRoots = nil }},
		"channel":      {lie: func(r *wire.EnrolReply) { r.Channel = "production-2" }},
		"certificate of another key": {lie: func(r *wire.EnrolReply) {
			r.Certificate = inPEM(newAuthority(t).cert.Raw)
		}},
		"cut":   {answer: func(b []byte) []byte { return b[:len(b)/2] }},
		"empty": {answer: func([]byte) []byte { return nil }},
		"long":  {answer: func([]byte) []byte { return make([]byte, maxReply+1) }},
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t)
			s.lie = c.lie
			f := crashfs.New()
			r, err := Ask(f, crashDir, s.token, crashName, nil)
			if err != nil {
				t.Fatal(err)
			}
			answer := carry(t, s, r)
			if c.answer != nil {
				answer = c.answer(answer)
			}
			if _, err := Answered(f, crashDir, s.token, answer); err == nil || c.want != nil && !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
		})
	}
}

// FuzzAnswer gives a device any bytes as the server's answer.
func FuzzAnswer(f *testing.F) {
	fsys := crashfs.New()
	token := &wire.EnrolToken{Server: "https://fleet.test", ID: "tok_1", Secret: make([]byte, 32), CA: make([]byte, 32), CatalogRoot: make([]byte, 32), DirectorRoot: make([]byte, 32), Channel: "dev"}
	if _, err := Ask(fsys, crashDir, token, crashName, nil); err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(`{"device":"meter-1","channel":"dev","mqtt":"a:1","ca":"LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0t","catalog_roots":["e30="],"director_roots":[]}`))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := Answered(fsys, crashDir, token, b); err == nil {
			t.Fatal("an answer is believed that no token names")
		}
	})
}
