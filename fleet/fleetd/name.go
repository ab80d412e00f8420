package fleetd

import (
	"bytes"
	"context"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/dunlin-edge/dunlin/fleet"
)

// NameStatus is how far devices follow the server's name.
type NameStatus struct {
	Name    string         `json:"name"`
	Former  []string       `json:"former"`
	Devices int            `json:"devices"` // active ones
	Using   map[string]int `json:"using"`   // devices by host name; "": not told yet
	Waiting []Followed     `json:"waiting"` // those that do not use the name
}

func (d *desk) names() *NameStatus {
	out := &NameStatus{Name: d.conf.Name, Former: append([]string{}, d.conf.FormerNames...), Devices: len(d.fs), Using: map[string]int{}, Waiting: []Followed{}}
	for _, f := range d.all {
		host, _, err := net.SplitHostPort(f.Address)
		if err != nil {
			host = ""
		}
		out.Using[host]++
		if host != d.conf.Name && len(d.conf.FormerNames) > 0 {
			out.Waiting = append(out.Waiting, f)
		}
	}
	return out
}

// Names tells which name devices of the server in dir use.
func Names(ctx context.Context, dir string) (out *NameStatus, err error) {
	err = openDesk(ctx, dir, func(d *desk) error { out = d.names(); return nil })
	return out, err
}

var hostName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?)*$`)

// Rename gives the server another name. The former ones stay good: its certificate
// has them all, and devices use a former one until the new one has worked.
func Rename(ctx context.Context, dir, name string, now time.Time) (out *NameStatus, err error) {
	err = openDesk(ctx, dir, func(d *desk) error {
		former := slices.DeleteFunc(d.conf.names(), func(n string) bool { return n == name })
		switch {
		case len(name) > 253 || net.ParseIP(name) == nil && !hostName.MatchString(name):
			return fleet.ErrNameState.With("%q is no host name", name)
		case name == d.conf.Name:
			return fleet.ErrNameState.With("the server is called %s", name)
		case len(former) > maxFormerNames:
			return fleet.ErrNameState.With("devices may still use %d former names: 'dunlin-fleet name finish' comes first", len(former)-1)
		}
		if err := d.audit(ctx, "server.rename", "from "+d.conf.Name+" to "+name, now); err != nil {
			return err
		}
		d.conf.Name, d.conf.FormerNames = name, former
		if err := d.writeNames(); err != nil {
			return err
		}
		out = d.names()
		return nil
	})
	return out, err
}

// FinishRename drops the former names. It is refused while active devices do not use
// the new one, unless forced: those are lost when nothing answers there any more.
func FinishRename(ctx context.Context, dir string, force bool, now time.Time) (out *NameStatus, err error) {
	err = openDesk(ctx, dir, func(d *desk) error {
		if len(d.conf.FormerNames) == 0 {
			return fleet.ErrNameState.With("there are no former names")
		}
		lost := d.names().Waiting
		if len(lost) > 0 && !force {
			return fleet.ErrNameDevices.With("%d of %d devices do not use %s yet, and would be lost: %s", len(lost), len(d.fs), d.conf.Name, named(lost))
		}
		if err := d.audit(ctx, "server.renamed", detail("to "+d.conf.Name, lost), now); err != nil {
			return err
		}
		d.conf.FormerNames = nil
		if err := d.writeNames(); err != nil {
			return err
		}
		out = d.names()
		return nil
	})
	return out, err
}

// writeNames changes the two names in fleet.yaml and leaves the rest, comments among
// it, as it is.
func (d *desk) writeNames() error {
	b, err := os.ReadFile(filepath.Join(d.dir, configFile))
	if err != nil {
		return err
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(b, &doc); err != nil || len(doc.Content) != 1 || doc.Content[0].Kind != yaml.MappingNode {
		return fleet.ErrServerConfig.With("%s: a mapping wanted: %v", configFile, err)
	}
	m := doc.Content[0]
	if err := setKey(m, "name", d.conf.Name); err != nil {
		return err
	}
	if err := setKey(m, "former_names", d.conf.FormerNames); err != nil {
		return err
	}
	var out bytes.Buffer
	e := yaml.NewEncoder(&out)
	e.SetIndent(2)
	if err := e.Encode(&doc); err != nil {
		return err
	}
	return d.write("name.config", configFile, out.Bytes(), 0o644)
}

func setKey(m *yaml.Node, key string, value any) error {
	var v yaml.Node
	if err := v.Encode(value); err != nil {
		return err
	}
	for i := 0; i+1 < len(m.Content); i += 2 {
		if m.Content[i].Value == key {
			m.Content[i+1] = &v
			return nil
		}
	}
	m.Content = append(m.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: key}, &v)
	return nil
}
