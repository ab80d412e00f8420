package pack

import (
	"os"
	"path/filepath"

	"github.com/dunlin-edge/dunlin/shared/bundle"
	"github.com/dunlin-edge/dunlin/shared/bundle/numpy"
)

// What a folder of golden cases is packed as.
const (
	goldenFile  = "golden.npz"
	goldenSlice = "slices"
)

const folderNext = "make one folder for each slice, named like 'site=a', with .npz files of the same arrays in it"

// goldenFolder joins the .npz files of every slice's folder, in the order of their
// names, with the folders' names as labels.
func (p *packer) goldenFolder(dir string) ([]byte, error) {
	joined := map[string]*bundle.Array{}
	var labels []string
	folders, err := os.ReadDir(p.path(dir))
	if err != nil {
		return nil, err
	}
	for _, d := range folders {
		if !d.IsDir() {
			return nil, refuse("pack.golden", folderNext, "%s/%s is no folder", dir, d.Name())
		}
		files, err := filepath.Glob(filepath.Join(p.path(dir), d.Name(), "*.npz"))
		if err != nil || len(files) == 0 {
			return nil, refuse("pack.golden", folderNext, "%s/%s holds no .npz file", dir, d.Name())
		}
		for _, f := range files {
			n, err := p.join(joined, f)
			if err != nil {
				return nil, refuse("pack.golden", folderNext, "%s: %v", f, err)
			}
			for range n {
				labels = append(labels, d.Name())
			}
		}
	}
	if len(labels) == 0 {
		return nil, refuse("pack.golden", folderNext, "%s holds no cases", dir)
	}
	joined[goldenSlice] = numpy.Texts(labels)
	return numpy.Write(joined)
}

// join appends the cases of a file and returns their number.
func (p *packer) join(to map[string]*bundle.Array, file string) (int, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	arrays, err := bundle.ReadNPZ(b)
	if err != nil {
		return 0, err
	}
	for name, a := range arrays {
		if to[name] == nil {
			to[name] = a
		} else if err := to[name].Join(a); err != nil {
			return 0, err
		}
	}
	if a := arrays[p.contract.Inputs[0].Name]; a != nil {
		return a.Len(), nil
	}
	return 0, nil
}
