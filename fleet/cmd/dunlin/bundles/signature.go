package bundles

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/kms"
	"github.com/dunlin-edge/dunlin/fleet/modelsig"
	"github.com/dunlin-edge/dunlin/fleet/pack"
	"github.com/dunlin-edge/dunlin/shared/bundle"
)

// signFlags say with what a bundle is signed while it is packed.
type signFlags struct {
	key, certificates, passphraseFile string
	unsigned                          bool
}

func (s *signFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&s.key, "sign-key", "", "model-signing key, a file or NAME://KEY of a plug-in, of which the bundle carries a "+modelsig.Name+" (DUNLIN_SIGN_KEY)")
	cmd.Flags().BoolVar(&s.unsigned, "unsigned", false, "make a bundle that carries no "+modelsig.Name)
	cmd.Flags().StringVar(&s.certificates, "sign-cert", "", "PEM file with the certificate of that key, and those up to its authority")
	cmd.Flags().StringVar(&s.passphraseFile, "passphrase-file", "", "file with the key's passphrase (default DUNLIN_PASSPHRASE, else it is asked for)")
}

// sign signs the plan, unless it is said that it is not to be signed.
func (c *Commands) sign(plan *pack.Plan, s *signFlags) error {
	if s.unsigned {
		fmt.Fprintf(c.Err, "note: the bundle carries no %s\n", modelsig.Name)
		return nil
	}
	file := cmp.Or(s.key, c.Getenv("DUNLIN_SIGN_KEY"))
	if file == "" {
		return &fleet.Error{Code: modelsig.CodeKey, Message: "it is not said with which key the bundle is signed",
			Next: "make one with 'dunlin keys model-signing --out publisher.pem' and pass --sign-key (DUNLIN_SIGN_KEY), or pass --unsigned"}
	}
	signer, err := c.signer(file, s.passphraseFile)
	if err != nil {
		return err
	}
	if s.certificates != "" {
		pem, err := os.ReadFile(s.certificates)
		if err != nil {
			return &fleet.Error{Code: modelsig.CodeKey, Message: fmt.Sprintf("the certificates: %v", err), Next: "name a PEM file with --sign-cert"}
		}
		if err := signer.Certify(pem); err != nil {
			return err
		}
	}
	return plan.Sign(signer)
}

// signer opens the key of a file, or that of a plug-in.
func (c *Commands) signer(where, passphraseFile string) (*modelsig.Signer, error) {
	if kms.IsReference(where) {
		k, err := kms.Open(context.Background(), where, kms.Config{Stderr: c.Err})
		if err != nil {
			return nil, err
		}
		public, err := k.PublicKey()
		if err != nil {
			return nil, err
		}
		return modelsig.NewRemoteSigner(public, func(m []byte) ([]byte, error) { return k.SignMessage(bytes.NewReader(m)) })
	}
	key, err := os.ReadFile(where)
	if err != nil {
		return nil, &fleet.Error{Code: modelsig.CodeKey, Message: fmt.Sprintf("the key to sign with: %v", err), Next: "make one with 'dunlin keys model-signing --out FILE'"}
	}
	return modelsig.NewSigner(key, c.Passphrase(passphraseFile, where))
}

// RequireFlag says whose model.sig must be there.
type RequireFlag struct{ text string }

func (r *RequireFlag) Add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&r.text, "require-signature", "", "whose "+modelsig.Name+" must be there: key=FILE, cert=FILE or identity=SUBJECT,issuer=URL,root=FILE")
}

// policy is nil if none is required.
func (r *RequireFlag) Policy() (*modelsig.Policy, error) {
	want, err := modelsig.ParseRequirement(r.text)
	if err != nil {
		return nil, err
	}
	return want.Load("")
}

// verifySignature verifies the model.sig of a bundle, or that of any folder or file;
// file "" is the one inside or beside.
func (c *Commands) verifySignature(path, file string, policy *modelsig.Policy, unsigned []string) error {
	if _, err := os.Stat(filepath.Join(path, bundle.LayoutFile)); err == nil {
		if file != "" || len(unsigned) > 0 {
			return &fleet.Error{Code: "usage.flag", Message: "a bundle carries its signature inside, and all of it is signed", Next: "leave --signature and --unsigned away"}
		}
		b, err := c.verifyBundle(path)
		if err != nil {
			return err
		}
		s, err := modelsig.VerifyBundle(b, policy, time.Now())
		if err != nil {
			return err
		}
		return c.printSigned(path, b.Digest, s)
	}
	var s *modelsig.Statement
	var err error
	switch info, statErr := os.Stat(path); {
	case statErr != nil:
		return &fleet.Error{Code: "bundle.unknown", Message: statErr.Error(), Next: "name a bundle, a folder with a model, or a model file"}
	case info.IsDir():
		s, err = modelsig.VerifyFolder(path, file, policy, time.Now(), unsigned...)
	default:
		s, err = modelsig.VerifyFile(path, file, policy, time.Now())
	}
	if err != nil {
		return err
	}
	return c.printSigned(path, "", s)
}

func (c *Commands) printSigned(path, digest string, s *modelsig.Statement) error {
	view := map[string]any{"path": path, "method": s.Method, "signer": s.Signer, "files": s.Len(), "ok": true}
	if digest != "" {
		view["digest"] = digest
	}
	return c.Print(view, func(w io.Writer) {
		fmt.Fprintf(w, "ok: %s, %d files signed by %s\n", path, s.Len(), s.Signer)
	})
}
