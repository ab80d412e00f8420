// Command dunlin-agent is the device: the daemon, the launcher of its workers
// and the local command line over its unix socket.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/dunlin-edge/dunlin/agent"
	"github.com/dunlin-edge/dunlin/agent/infer/sandbox"
)

// command is one word of the command line.
type command struct {
	name, args, about string
	run               func(ctx context.Context, env *env, args []string) error
}

// env is what a command may use of its process.
type env struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	config         string // path
	json           bool
}

var commands = []command{
	{"run", "", "be the device: serve models, follow the fleet", run},
	{"enroll", "--token TOKEN [--name NAME] [--wait 10m] [--stick PATH]", "get an identity from the fleet server", enroll},
	{"status", "[--config]", "what this device runs, and what it is doing", status},
	{"ask", "MODEL [FILE] [--out PICTURE]", "ask a model; FILE is a .jpg, .png, .wav, .json, .npz or .npy; without it: what the model wants", ask},
	{"batch", "--model M --in DIR|FILE --out FILE", "ask a model about many cases; a run that was cut goes on", askMany},
	{"stream", "--model M [--broker URL --from TOPIC --to TOPIC]", "answer messages as they come, of standard input or an MQTT broker", askStream},
	{"import", "PATH [--wait 10m]", "take in a stick made by 'dunlin usb export'", importStick},
	{"feedback", "ID LABEL|--right|--wrong", "say what was right of an answer", feedback},
	{"rollback", "MODEL", "return a model to its previous slot", rollback},
	{"reset", "[--yes]", "wipe the identity, the models and all records of this device", reset},
	{"doctor", "", "what will keep this device from running models", doctor},
	{"version", "", "the agent's version", version},
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == sandbox.Word {
		os.Exit(sandbox.Main(os.Args[2:]))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := dispatch(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// dispatch runs one command line and returns its exit code: 0 done, 1 refused or
// not possible, 2 not understood.
func dispatch(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	if len(args) == 0 || args[0] == "-h" || args[0] == "--help" || args[0] == "help" {
		usage(stdout)
		return 0
	}
	for _, c := range commands {
		if c.name != args[0] {
			continue
		}
		err := c.run(ctx, &env{stdin: stdin, stdout: stdout, stderr: stderr}, args[1:])
		return exitCode(stderr, c, err)
	}
	fmt.Fprintf(stderr, "error: no command %q\n  next: dunlin-agent help\n", args[0])
	return 2
}

func exitCode(stderr io.Writer, c command, err error) int {
	var local *agent.LocalError
	switch {
	case err == nil:
		return 0
	case errors.Is(err, flag.ErrHelp):
		return 0
	case errors.Is(err, errUsage):
		fmt.Fprintf(stderr, "error: %v\n  next: dunlin-agent %s %s\n", err, c.name, c.args)
		return 2
	case errors.As(err, &local):
		fmt.Fprintf(stderr, "error: %v\n  next: %s\n", err, local.Next)
	default:
		fmt.Fprintf(stderr, "error: %v\n", err)
	}
	return 1
}

var errUsage = errors.New("not understood")

func usage(w io.Writer) {
	fmt.Fprint(w, "dunlin-agent runs signed models on this device.\n\n")
	for _, c := range commands {
		fmt.Fprintf(w, "  %s\n      %s\n", strings.TrimSpace(c.name+" "+c.args), c.about)
	}
	fmt.Fprintf(w, "\nEvery command takes --config FILE (default %s).\n", agent.DefaultConfigPath)
}

// parse reads the flags that every command has, those that add defines, and
// between min and max words.
func parse(e *env, name string, args []string, add func(*flag.FlagSet), min, max int) ([]string, agent.Config, error) {
	fs := flag.NewFlagSet(name, flag.ContinueOnError)
	fs.SetOutput(e.stderr)
	fs.StringVar(&e.config, "config", agent.DefaultConfigPath, "configuration `file`")
	output := fs.String("o", "table", "output: table or json")
	if add != nil {
		add(fs)
	}
	var words []string
	for {
		if err := fs.Parse(args); err != nil {
			if errors.Is(err, flag.ErrHelp) {
				return nil, agent.Config{}, err
			}
			return nil, agent.Config{}, fmt.Errorf("%w: %v", errUsage, err)
		}
		if fs.NArg() == 0 {
			break
		}
		words, args = append(words, fs.Arg(0)), fs.Args()[1:]
	}
	if len(words) < min || len(words) > max {
		return nil, agent.Config{}, fmt.Errorf("%w: %d words after %s", errUsage, len(words), name)
	}
	e.json = *output == "json"
	c, err := agent.LoadConfig(e.config)
	return words, c, err
}
