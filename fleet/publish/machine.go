package publish

import (
	"path/filepath"
	"slices"
	"strings"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/offline"
)

// MachineConfig says which machine gets a key for which channel.
type MachineConfig struct {
	Dir, Name, Channel string
	Key                string // a plug-in's, as NAME://KEY; empty: it is made here
	Passphrase         offline.Passphrase
}

// AddMachine makes a key that signs releases of one channel without a person, such
// as a build server's, and adds its public half to a ceremony of which nothing is
// signed yet. Only channels that want one signature take it, and never the last: what
// runs on devices that matter is decided by people. It returns where the key is.
func AddMachine(c MachineConfig) (where string, err error) {
	if !holderForm.MatchString(c.Name) {
		return "", refuse("machine.malformed", "write it like 'ci': small letters, digits and dashes", "machine %q is not understood", c.Name)
	}
	cer, err := LoadCeremony(c.Dir)
	if err != nil {
		return "", refuse("ceremony.unknown", "name the folder with --dir, or begin with 'dunlin keys init'", "%v", err)
	}
	open := fleet.Channels[:len(fleet.Channels)-1]
	if err := cer.unsigned(c.Dir); err != nil {
		return "", err
	}
	switch {
	case !slices.Contains(open, c.Channel) || cer.ChannelThreshold(c.Channel) > 1:
		return "", refuse("machine.channel", "pass one of: "+strings.Join(open, ", "), "channel %q is not signed by machines", c.Channel)
	case len(cer.Machines) == maxMachines:
		return "", refuse("ceremony.machines", "end one of them", "%d machines have keys, more cannot", maxMachines)
	case slices.ContainsFunc(cer.Machines, func(m Machine) bool { return m.Name == c.Name }) || slices.ContainsFunc(cer.Joined, func(h Holder) bool { return h.Name == c.Name }):
		return "", refuse("holder.exists", "choose another --name", "%s has a key already", c.Name)
	}
	m := Machine{Name: c.Name, Channel: c.Channel, Ref: c.Key}
	if where = c.Key; where == "" {
		where = filepath.Join(c.Dir, KeysDir, c.Name+"-"+c.Channel+".pem")
	}
	if m.Key, err = offline.OwnKey(where, c.Passphrase); err != nil {
		return "", err
	}
	cer.Machines = append(cer.Machines, m)
	if cer.complete() {
		if err := cer.writeDrafts(c.Dir); err != nil {
			return "", err
		}
	}
	return where, cer.Save(c.Dir)
}

// unsigned refuses a ceremony of which a draft is signed already.
func (c *Ceremony) unsigned(dir string) error {
	if !c.complete() {
		return nil
	}
	papers, err := c.papers(dir)
	if err != nil {
		return err
	}
	for _, d := range papers {
		if len(*offline.Signatures(d.Paper)) > 0 {
			return refuse("ceremony.signed", "add it with a rotation of the channel's role", "%s is signed already", d.File)
		}
	}
	return nil
}
