package catalog

import (
	"context"
	"crypto/ed25519"

	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// Online are all keys of a server: those that sign the catalog, and the public half
// of the director's.
type Online struct {
	Keys
	Director ed25519.PublicKey
}

// inUse are the keys that sign now.
func (s *Service) inUse() Online {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.took != nil {
		return *s.took
	}
	return Online{s.Keys, s.Director}
}

// chosen are the keys of this server that both roots name: those in use, or the next
// ones; next tells which. Other keys, or some of these and some of those, are refused.
func (s *Service) chosen(root, director *metadata.Metadata[metadata.RootType]) (o Online, next bool, err error) {
	o = s.inUse()
	if err = o.named(root, director); err == nil || s.Next == nil {
		return o, false, err
	}
	n, nextErr := s.Next()
	if nextErr != nil || n == nil || n.named(root, director) != nil {
		return o, false, err
	}
	return *n, true, nil
}

// named wants both roots to give the online roles to these keys and no others.
func (o *Online) named(root, director *metadata.Metadata[metadata.RootType]) error {
	for role, key := range map[string]ed25519.PrivateKey{metadata.SNAPSHOT: o.Snapshot, metadata.TIMESTAMP: o.Timestamp} {
		if err := soleKey(root, role, key.Public().(ed25519.PublicKey)); err != nil {
			return err
		}
	}
	for _, role := range []string{metadata.TARGETS, metadata.SNAPSHOT, metadata.TIMESTAMP} {
		if err := soleKey(director, role, o.Director); err != nil {
			return err
		}
	}
	return nil
}

// Named tells whether the newest roots of both repositories name these keys; false
// before there are roots.
func (s *Service) Named(ctx context.Context, o *Online) (bool, error) {
	var newest []*rootFile
	for _, repo := range []string{Repo, RepoDirector} {
		roots, err := s.Store.Roots(ctx, repo)
		if err != nil || len(roots) == 0 {
			return false, err
		}
		root, err := parse(roots[len(roots)-1], MaxRoot, metadata.Root())
		if err != nil {
			return false, err
		}
		newest = append(newest, root)
	}
	return o.named(newest[0], newest[1]) == nil, nil
}

// use signs with the next keys from now on.
func (s *Service) use(o Online) error {
	s.mu.Lock()
	s.took = &o
	s.mu.Unlock()
	if s.Took != nil {
		return s.Took(&o)
	}
	return nil
}
