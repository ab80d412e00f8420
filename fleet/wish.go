package fleet

import (
	"slices"
	"strings"
	"time"
)

// Item is one model that a device shall run.
type Item struct {
	Model   string `json:"model"`
	Path    string `json:"path"`    // catalog path of the release
	Runtime string `json:"runtime"` // catalog path of the runtime to pair with
	Attempt int64  `json:"attempt"`
	Rollout string `json:"rollout,omitempty"`
	Arm     string `json:"arm,omitempty"`
}

// Wish is everything that a device shall run. Generation rises with each
// change, Version is that of the director's metadata; both are allocated in the
// transaction that stores the wish.
type Wish struct {
	Device     string
	Generation int64
	Version    int64
	Items      []Item // sorted by model
	Changed    time.Time
	// Withheld says that the server came back from a backup and the device was
	// not heard of since: what is signed leaves every model out, so that the
	// device stays as it is.
	Withheld bool
}

// Item returns the item for a model.
func (w *Wish) Item(model string) (Item, bool) {
	for _, it := range w.Items {
		if it.Model == model {
			return it, true
		}
	}
	return Item{}, false
}

// Put sets the item of its model.
func (w *Wish) Put(it Item) {
	w.Remove(it.Model)
	i, _ := slices.BinarySearchFunc(w.Items, it.Model, func(x Item, m string) int { return strings.Compare(x.Model, m) })
	w.Items = slices.Insert(w.Items, i, it)
}

// Remove takes a model out of the wish; the device leaves it as it is.
func (w *Wish) Remove(model string) {
	w.Items = slices.DeleteFunc(slices.Clone(w.Items), func(x Item) bool { return x.Model == model })
}
