package main

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
)

// runningDevice is one device in running.json.
type runningDevice struct {
	Device string `json:"device"`
	HTTP   string `json:"http"`   // Open Inference Protocol over TCP
	Socket string `json:"socket"` // the same over a unix socket
	Config string `json:"config"`
	PID    int    `json:"pid"`
}

// running writes build/demo/running.json: everything that somebody needs who
// wants to play with the fleet while it is up.
func (d *demo) running() error {
	out := struct {
		API     string          `json:"api"`
		Env     []string        `json:"env"`
		Devices []runningDevice `json:"devices"`
		PIDs    map[string]int  `json:"pids"`
	}{API: d.api.base, Env: d.sh.env, PIDs: map[string]int{}}
	for _, a := range d.agents {
		out.Devices = append(out.Devices, runningDevice{a.name, "http://" + a.listen, filepath.Join(a.dir, "run", "infer.sock"), a.config(), a.proc.cmd.Process.Pid})
	}
	for _, p := range d.ps.all {
		if p.alive() {
			out.PIDs[p.name] = p.cmd.Process.Pid
		}
	}
	b, err := json.MarshalIndent(out, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(d.out, "running.json"), append(b, '\n'), 0o600)
}

// stay keeps everything up and says what can be tried, until Ctrl-C.
func (d *demo) stay(ctx context.Context) {
	a := d.agents[0]
	d.say("\nEverything stays up until Ctrl-C. Try, in another terminal:\n\n")
	for _, e := range d.sh.env {
		d.say("  export %s\n", e)
	}
	d.say("  export PATH=%s:$PATH\n\n", d.bin)
	d.say("  dunlin device list\n  dunlin device show %s\n  dunlin rollout list\n  dunlin model show %s\n", a.name, modelName)
	d.say("  dunlin-agent status --config %s\n", a.config())
	d.say("  dunlin-agent ask %s %s --config %s\n", modelName, filepath.Join(d.models, "1.1.0", "golden.npz"), a.config())
	d.say("  curl http://%s/v2/models/%s\n", a.listen, modelName)
	<-ctx.Done()
	d.say("\nstopping\n")
}
