package amend

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/dunlin-edge/dunlin/fleet/offline"
	"github.com/dunlin-edge/dunlin/fleet/publish"
)

// Changes say what an amendment changes, one line each. They follow from what is
// signed, unlike Act, which is only what its maker wrote.
func (a *Amendment) Changes() ([]string, error) {
	was, err := keysOf(&a.Old)
	if err != nil {
		return nil, err
	}
	is, err := keysOf(&a.New)
	if err != nil {
		return nil, err
	}
	list := []string{}
	for _, whose := range slices.Sorted(maps.Keys(was)) {
		switch now, ok := is[whose]; {
		case !ok:
			list = append(list, fmt.Sprintf("%s goes: %s", whose, was[whose]))
		case now != was[whose]:
			list = append(list, fmt.Sprintf("%s changes: %s becomes %s", whose, was[whose], now))
		}
	}
	for _, whose := range slices.Sorted(maps.Keys(is)) {
		if _, ok := was[whose]; !ok {
			list = append(list, fmt.Sprintf("%s comes: %s", whose, is[whose]))
		}
	}
	was, is = teamsOf(&a.Old), teamsOf(&a.New)
	for _, t := range slices.Sorted(maps.Keys(was)) {
		if is[t] == "" {
			list = append(list, t+" ends")
		}
	}
	for _, t := range slices.Sorted(maps.Keys(is)) {
		if is[t] != was[t] {
			list = append(list, t+": "+is[t])
		}
	}
	if a.Old.Threshold != a.New.Threshold || a.Old.Holders != a.New.Holders {
		list = append(list, fmt.Sprintf("%d of %d must sign, before %d of %d", a.New.Threshold, a.New.Holders, a.Old.Threshold, a.Old.Holders))
	}
	for _, model := range slices.Sorted(maps.Keys(a.Floors)) {
		list = append(list, fmt.Sprintf("the floor of %s in %s rises to %d", model, a.Channel, a.Floors[model]))
	}
	for _, p := range a.papers {
		list = append(list, fmt.Sprintf("%s is good until %s", p.file, p.expires.Format("2006-01-02")))
	}
	return list, nil
}

// teamsOf says of every team what it signs and who is in it.
func teamsOf(c *publish.Ceremony) map[string]string {
	out := map[string]string{}
	for i := range c.Teams {
		t := &c.Teams[i]
		out["team "+t.Name+" of "+t.Channel] = fmt.Sprintf("%s, %d of %s must sign", strings.Join(t.Models, ", "), t.Threshold, strings.Join(t.Members, ", "))
	}
	return out
}

// keysOf are the ids of all keys that a ceremony names, by whose they are.
func keysOf(c *publish.Ceremony) (map[string]string, error) {
	keys := map[string][]byte{}
	for _, h := range c.Joined {
		keys["the root key of "+h.Name], keys["the release key of "+h.Name] = h.Root, h.Release
	}
	for _, m := range c.Machines {
		keys["the key of machine "+m.Name+" for "+m.Channel] = m.Key
	}
	keys["the server's snapshot key"], keys["the server's timestamp key"], keys["the server's director key"] = c.Online.Snapshot, c.Online.Timestamp, c.Online.Director
	ids := map[string]string{}
	for whose, key := range keys {
		_, id, err := offline.TUFKey(key)
		if err != nil {
			return nil, err
		}
		ids[whose] = id
	}
	return ids, nil
}
