package kms

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"strings"
	"time"
	"unicode"

	"github.com/sigstore/sigstore/pkg/signature/kms/cliplugin/common"
)

// waitDelay is what a killed plug-in's children get to let go of its pipes.
const waitDelay = 2 * time.Second

// maxSaid bounds what is repeated of a plug-in's own words, in characters.
const maxSaid = 300

// call runs the plug-in once.
func (s *Signer) call(ctx context.Context, message []byte, method *common.MethodArgs) (*common.PluginResp, error) {
	path, err := exec.LookPath(s.program)
	if err != nil {
		return nil, refuse(CodeAbsent, "install it and put its folder into PATH", "the plug-in %s of %s is not to be had: %v", s.program, s.ref, err)
	}
	limit := cmp.Or(s.conf.Timeout, Timeout)
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	args, err := json.Marshal(s.arguments(ctx, method))
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, path, common.ProtocolVersion, string(args))
	out := &bounded{left: maxAnswer, over: cancel}
	cmd.Stdin, cmd.Stdout, cmd.WaitDelay = bytes.NewReader(message), out, waitDelay
	if s.conf.Stderr != nil {
		cmd.Stderr = &bounded{to: s.conf.Stderr, left: maxComplaint}
	}
	err = cmd.Run()
	switch {
	case out.left < 0:
		return nil, s.wrong("more than %d bytes", maxAnswer)
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return nil, refuse(CodeTimeout, "look whether it waits for you: a token to be touched, a PIN", "%s did not answer within %v", s.program, limit)
	case ctx.Err() != nil:
		return nil, ctx.Err()
	}
	return s.answer(out.kept.Bytes(), err)
}

// answer reads what a plug-in wrote before it ended with err. Its exit code says
// nothing: plug-ins tell errors in their answers.
func (s *Signer) answer(b []byte, err error) (*common.PluginResp, error) {
	var resp common.PluginResp
	if parse := json.Unmarshal(b, &resp); parse != nil {
		if err != nil {
			return nil, s.wrong("it ended with %v and said %q", err, said(string(b)))
		}
		return nil, s.wrong("%v", parse)
	}
	if resp.ErrorMessage != "" {
		return nil, refuse(CodeRefused, "do what it says, or ask who looks after it", "%s refuses: %s", s.program, said(resp.ErrorMessage))
	}
	return &resp, nil
}

func (s *Signer) arguments(ctx context.Context, method *common.MethodArgs) *common.PluginArgs {
	init := &common.InitOptions{ProtocolVersion: common.ProtocolVersion, KeyResourceID: s.id, HashFunc: hash, RPCOptions: &common.RPCOptions{}}
	if deadline, ok := ctx.Deadline(); ok {
		deadline = deadline.UTC().Truncate(time.Millisecond)
		init.CtxDeadline = &deadline
	}
	return &common.PluginArgs{InitOptions: init, MethodArgs: method}
}

// said is what somebody else wrote, fit for a terminal.
func said(text string) string {
	clean := []rune(strings.TrimSpace(strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, text)))
	if len(clean) > maxSaid {
		return string(clean[:maxSaid]) + "…"
	}
	return string(clean)
}

// bounded takes so many bytes. It keeps them, or passes them to another; those
// after them are dropped and told once.
type bounded struct {
	to   io.Writer // nil: keep
	kept bytes.Buffer
	left int // below 0: there were more
	over func()
}

// Write implements io.Writer; it fails only where the other writer does.
func (b *bounded) Write(p []byte) (int, error) {
	n := len(p)
	if b.left < 0 {
		return n, nil
	}
	if len(p) > b.left {
		p = p[:b.left]
		b.left = -1
		if b.over != nil {
			b.over()
		}
	} else {
		b.left -= len(p)
	}
	if b.to == nil {
		b.kept.Write(p)
		return n, nil
	}
	if _, err := b.to.Write(p); err != nil {
		return 0, err
	}
	return n, nil
}
