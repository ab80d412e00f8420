package enroll_test

import (
	"context"
	"crypto/elliptic"
	"crypto/x509"
	"errors"
	"testing"
	"time"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/enroll"
	"github.com/dunlin-edge/dunlin/fleet/sqlite"
)

// restored is a server whose backup was made just after its device was enrolled.
func restored(t *testing.T) (*rig, *member) {
	t.Helper()
	r := newRig(t).withRoots(t)
	m := r.member(t, "meter-1")
	r.now = start.Add(70 * 24 * time.Hour)
	nothing := func([]fleet.MetaRow) ([]fleet.MetaRow, error) { return nil, nil }
	if _, err := r.db.Restore(t.Context(), sqlite.Restore{Jump: fleet.RestoreJump, At: r.now, Sign: unsigned, Online: nothing}); err != nil {
		t.Fatal(err)
	}
	return r, m
}

func unsigned(*fleet.Wish) ([]fleet.MetaRow, error) { return nil, nil }

// renewed is a certificate that the server has issued after the backup.
func (r *rig) renewed(t *testing.T, ca *enroll.CA, device string, at time.Time) *x509.Certificate {
	t.Helper()
	text, _, err := ca.Device(device, &newKey(t, elliptic.P256()).PublicKey, at)
	if err != nil {
		t.Fatal(err)
	}
	return certificate(t, text)
}

// reconcile is the first hello.
func (r *rig) reconcile(t *testing.T, device string) {
	t.Helper()
	err := r.db.Reconcile(t.Context(), device, fleet.Told{}, r.now, func(w *fleet.Wish, _ int64, _ []fleet.Member) (*fleet.Reconciliation, error) {
		return &fleet.Reconciliation{Wish: w}, nil
	}, unsigned)
	if err != nil {
		t.Fatal(err)
	}
}

// come is the admission of a session, and the proof that the key is held.
func (r *rig) come(ctx context.Context, c *x509.Certificate) (recovered bool, err error) {
	if err := r.Admit(ctx, c); err != nil {
		return false, err
	}
	if recovered, err = r.Recover(ctx, c); err != nil {
		return recovered, err
	}
	_, err = r.Came(ctx, c.Subject.CommonName, c.RawSubjectPublicKeyInfo)
	return recovered, err
}

func TestRecover(t *testing.T) {
	r, m := restored(t)
	c := r.renewed(t, r.standing.CAs[0], "meter-1", start.Add(60*24*time.Hour))
	if recovered, err := r.come(t.Context(), c); !recovered || err != nil {
		t.Fatal(recovered, err)
	}
	if recovered, err := r.come(t.Context(), c); recovered || err != nil {
		t.Error("a second time:", recovered, err)
	}
	if _, err := r.come(t.Context(), m.cert); !errors.Is(err, fleet.ErrDeviceRevoked) {
		t.Error("the key that the backup knew:", err)
	}
	d, err := r.db.Device(t.Context(), "meter-1")
	if err != nil || d.Serial != c.SerialNumber.Text(16) || !d.Expires.Equal(c.NotAfter) || string(d.PublicKey) != string(c.RawSubjectPublicKeyInfo) {
		t.Errorf("%+v, %v", d, err)
	}
	if fs, err := r.db.Formers(t.Context(), "meter-1"); err != nil || len(fs) != 1 || string(fs[0].PublicKey) != string(m.cert.RawSubjectPublicKeyInfo) {
		t.Errorf("former keys: %+v, %v", fs, err)
	}
	if n := m.acts()["device.recovered"]; n != 1 {
		t.Errorf("%d rows in the audit", n)
	}
	// It renews from there.
	r.now = start.Add(120 * 24 * time.Hour)
	r.reconcile(t, "meter-1")
	if recovered, err := r.come(t.Context(), c); recovered || err != nil {
		t.Error("after its hello:", recovered, err)
	}
}

// Who is not believed, and with what powers.
func TestRecoverAttacks(t *testing.T) {
	day := 24 * time.Hour
	for name, tc := range map[string]struct {
		before func(*testing.T, *rig)
		cert   func(*testing.T, *rig, *enroll.CA) *x509.Certificate // of the CA that there was
	}{
		"a key from before the backup, stolen": {nil, func(t *testing.T, r *rig, _ *enroll.CA) *x509.Certificate {
			return r.renewed(t, r.standing.CAs[0], "meter-1", start.Add(-60*day))
		}},
		"a certificate of the same second": {nil, func(t *testing.T, r *rig, _ *enroll.CA) *x509.Certificate {
			return r.renewed(t, r.standing.CAs[0], "meter-1", start)
		}},
		"a CA of the thief's own": {nil, func(t *testing.T, r *rig, _ *enroll.CA) *x509.Certificate {
			return r.renewed(t, newCA(t), "meter-1", start.Add(60*day))
		}},
		"another device's certificate": {nil, func(t *testing.T, r *rig, _ *enroll.CA) *x509.Certificate {
			return r.renewed(t, r.standing.CAs[0], "meter-2", start.Add(60*day))
		}},
		"after the device was heard of": {func(t *testing.T, r *rig) { r.reconcile(t, "meter-1") }, func(t *testing.T, r *rig, _ *enroll.CA) *x509.Certificate {
			return r.renewed(t, r.standing.CAs[0], "meter-1", start.Add(60*day))
		}},
		"a revoked device": {func(t *testing.T, r *rig) {
			if err := r.db.Revoke(t.Context(), "meter-1", fleet.Audit{}); err != nil {
				t.Fatal(err)
			}
		}, func(t *testing.T, r *rig, _ *enroll.CA) *x509.Certificate {
			return r.renewed(t, r.standing.CAs[0], "meter-1", start.Add(60*day))
		}},
		"a CA that was retired": {func(t *testing.T, r *rig) { r.becomes([]*enroll.CA{newCA(t)}, r.standing.Addresses...) }, func(t *testing.T, r *rig, was *enroll.CA) *x509.Certificate {
			return r.renewed(t, was, "meter-1", start.Add(60*day))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			r, m := restored(t)
			was := r.standing.CAs[0]
			if tc.before != nil {
				tc.before(t, r)
			}
			recovered, err := r.come(t.Context(), tc.cert(t, r, was))
			if recovered || !errors.Is(err, fleet.ErrDeviceRevoked) && !errors.Is(err, fleet.ErrDeviceUnknown) {
				t.Errorf("%v, %v", recovered, err)
			}
			if n := m.acts()["device.recovered"]; n != 0 {
				t.Errorf("%d rows in the audit", n)
			}
		})
	}
}

// Without a restore no unknown key is believed.
func TestRecoverWithoutRestore(t *testing.T) {
	r := newRig(t).withRoots(t)
	r.member(t, "meter-1")
	c := r.renewed(t, r.standing.CAs[0], "meter-1", start.Add(60*24*time.Hour))
	if recovered, err := r.come(t.Context(), c); recovered || !errors.Is(err, fleet.ErrDeviceRevoked) {
		t.Error(recovered, err)
	}
}
