// Command plugin is a sigstore KMS plug-in for tests, built as sigstore-kms-test.
// Its keys are KIND/NAME, made from their names, so that they are the same in every
// process and secret to nobody. Behind BAD/KIND/NAME it behaves badly.
package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/sigstore/sigstore/pkg/signature/kms/cliplugin/common"
	"github.com/sigstore/sigstore/pkg/signature/kms/cliplugin/handler"
)

func main() {
	if len(os.Args) == 1 { // the child of forks
		hang()
	}
	if err := run(); err != nil {
		handler.WriteErrorResponse(os.Stdout, err)
		os.Exit(1)
	}
}

// hang lasts longer than anybody waits, and not for ever.
func hang() { <-time.After(5 * time.Minute) }

func run() error {
	args, err := handler.GetPluginArgs(os.Args)
	if err != nil {
		return err
	}
	if args.InitOptions.ProtocolVersion != common.ProtocolVersion || os.Args[1] != common.ProtocolVersion {
		return fmt.Errorf("protocol %s is not known", args.InitOptions.ProtocolVersion)
	}
	id := args.InitOptions.KeyResourceID
	name := id
	if parts := strings.Split(id, "/"); len(parts) == 3 {
		name = parts[1] + "/" + parts[2]
		done, err := misbehave(parts[0], args.MethodName, &name)
		if done || err != nil {
			return err
		}
	}
	key, err := keyOf(name)
	if err != nil {
		return err
	}
	_, err = handler.Dispatch(os.Stdout, os.Stdin, args, key)
	return err
}

// misbehave does something bad; done tells that nothing good follows.
func misbehave(how, method string, name *string) (done bool, err error) {
	signs := method == common.SignMessageMethodName
	switch how {
	case "refuses":
		if signs {
			return true, errors.New("the token is locked:\n\x1b[31mtype its PIN")
		}
	case "hangs":
		hang()
	case "hangs-signing":
		if signs {
			hang()
		}
	case "forks": // ends and leaves a child that holds its output
		child := exec.Command(os.Args[0])
		child.Stdout = os.Stdout
		return true, child.Start()
	case "floods":
		for {
			if _, err := os.Stdout.Write(make([]byte, 1<<16)); err != nil {
				return true, err
			}
		}
	case "chatters": // a plug-in may talk to people as much as it likes
		fmt.Fprint(os.Stderr, strings.Repeat("please wait. ", 1<<16))
	case "crashes":
		os.Exit(3)
	case "silent":
		return true, nil
	case "garbage":
		fmt.Print("<html>not found</html>")
		return true, nil
	case "forgets": // answers another question
		fmt.Print(`{"defaultAlgorithm":{"defaultAlgorithm":"x"}}`)
		return true, nil
	case "no-key":
		fmt.Print(`{"publicKey":{"publicKeyPEM":"AAAA"}}`)
		return true, nil
	case "other-key": // signs with another key than it shows
		if signs {
			*name += "-other"
		}
	case "bad-signature":
		if signs {
			fmt.Print(`{"signMessage":{"signature":"AAAA"}}`)
			return true, nil
		}
	default:
		return true, fmt.Errorf("%q is not known", how)
	}
	return false, nil
}

// key is what handler wants of one; only signing is done.
type key struct{ signature.SignerVerifier }

func keyOf(name string) (*key, error) {
	kind, _, _ := strings.Cut(name, "/")
	seed := sha256.Sum256([]byte(name))
	var private crypto.PrivateKey
	var err error
	switch kind {
	case "ed25519":
		private = ed25519.NewKeyFromSeed(seed[:])
	case "p256":
		private, err = ecdsa.ParseRawPrivateKey(elliptic.P256(), seed[:])
	case "p384":
		private, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "rsa":
		private, err = rsa.GenerateKey(rand.Reader, 2048)
	default:
		return nil, fmt.Errorf("no key %q", name)
	}
	if err != nil {
		return nil, err
	}
	sv, err := signature.LoadSignerVerifier(private, crypto.SHA256)
	return &key{sv}, err
}

func (*key) DefaultAlgorithm() string      { return "ed25519" }
func (*key) SupportedAlgorithms() []string { return []string{"ed25519", "p256"} }

func (*key) CreateKey(context.Context, string) (crypto.PublicKey, error) {
	return nil, errors.New("keys are made from their names")
}

func (*key) CryptoSigner(context.Context, func(error)) (crypto.Signer, crypto.SignerOpts, error) {
	return nil, nil, errors.New("not here")
}
