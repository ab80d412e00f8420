package captures

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	_ "image/jpeg" // its sides
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/cmd/dunlin/remote"
	"github.com/dunlin-edge/dunlin/fleet/web"
	"github.com/dunlin-edge/dunlin/shared/bundle"
)

// Formats of a pull.
const (
	formatFolder = "folder"
	formatCOCO   = "coco"
)

// unlabelled is the folder of samples whose right class nobody said.
const unlabelled = "unlabelled"

func (c *Commands) pullCmd() *cobra.Command {
	var format, out string
	cmd := &cobra.Command{
		Use: "pull CAPTURE", Short: "Bring captured inputs here, with the labels that were said", Args: cobra.ExactArgs(1),
		Long: `Bring captured inputs here, with the labels that were said.

  folder  a folder for each class, 'unlabelled' where nobody said which was right;
          pictures as PNG, other tensors as .npy; samples.json says what is known
  coco    images/ and annotations.json, for models whose input is a picture

Inputs that are here already are not fetched again.`,
		Example: "  dunlin capture pull cap_01J… --format folder --out wrong-digits",
		RunE: func(cmd *cobra.Command, args []string) error {
			if format != formatFolder && format != formatCOCO || out == "" {
				return &fleet.Error{Code: "usage.flag", Message: "--format folder or coco, and --out DIR are wanted", Next: "run 'dunlin capture pull --help'"}
			}
			api, err := c.API()
			if err != nil {
				return err
			}
			samples, err := remote.All[web.CapturedView](cmd.Context(), api, "/v1/captures/"+url.PathEscape(args[0])+"/samples", url.Values{"limit": {"1000"}})
			if err != nil {
				return err
			}
			p := &pull{api: api, capture: args[0], out: out}
			if format == formatCOCO {
				err = p.coco(cmd.Context(), samples)
			} else {
				err = p.folders(cmd.Context(), samples)
			}
			if err != nil {
				return err
			}
			return c.Print(map[string]any{"samples": len(samples), "out": out}, func(w io.Writer) { fmt.Fprintf(w, "%d samples in %s\n", len(samples), out) })
		},
	}
	cmd.Flags().StringVar(&format, "format", formatFolder, "folder or coco")
	cmd.Flags().StringVar(&out, "out", "", "folder to write to; made if it is not there")
	return cmd
}

// pull is one pull under way.
type pull struct {
	api     remote.API
	capture string
	out     string
}

// item is what samples.json says of a sample.
type item struct {
	web.CapturedView
	Files []string `json:"files"`
}

// folders writes a folder for each class.
func (p *pull) folders(ctx context.Context, samples []web.CapturedView) error {
	var items []item
	for _, s := range samples {
		name := unlabelled
		if s.Label != "" {
			name = safe(s.Label)
		}
		files, err := p.files(ctx, &s, name)
		if err != nil {
			return err
		}
		items = append(items, item{s, files})
	}
	return p.json("samples.json", items)
}

// files writes the inputs of a sample below a folder and returns their paths.
func (p *pull) files(ctx context.Context, s *web.CapturedView, folder string) ([]string, error) {
	var all []byte
	var out []string
	stem := safe(s.Device) + "-" + safe(s.Sample)
	at := int64(0)
	for i, in := range s.Inputs {
		var t bundle.Tensor
		if err := json.Unmarshal(in.Tensor, &t); err != nil {
			return nil, fmt.Errorf("sample %s of %s: %w", s.Sample, s.Device, err)
		}
		name := stem
		if len(s.Inputs) > 1 {
			name += "." + safe(t.Name)
		}
		write, suffix := format(&t, &in)
		path := filepath.Join(folder, name+suffix)
		out = append(out, filepath.ToSlash(path))
		if _, err := os.Stat(filepath.Join(p.out, path)); err == nil {
			at += in.Bytes
			continue
		}
		if all == nil {
			var err error
			if all, err = p.api.Do(ctx, http.MethodGet, "/v1/captures/"+url.PathEscape(p.capture)+"/samples/"+url.PathEscape(s.Device)+"/"+url.PathEscape(s.Sample), nil); err != nil {
				return nil, err
			}
		}
		if in.Bytes < 0 || at+in.Bytes > int64(len(all)) {
			return nil, fmt.Errorf("sample %s of %s: input %d is not all there", s.Sample, s.Device, i)
		}
		b := all[at : at+in.Bytes]
		at += in.Bytes
		if err := p.file(path, func(w io.Writer) error { return write(w, &t, in.Shape, b) }); err != nil {
			return nil, fmt.Errorf("sample %s of %s: %w", s.Sample, s.Device, err)
		}
	}
	return out, nil
}

// file writes a file, whole or not at all.
func (p *pull) file(path string, write func(io.Writer) error) error {
	full := filepath.Join(p.out, path)
	if err := os.MkdirAll(filepath.Dir(full), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(full), ".pull-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // gone already after the rename
	if err := errors.Join(write(f), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), full)
}

func (p *pull) json(name string, v any) error {
	return p.file(name, func(w io.Writer) error {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(v)
	})
}

// safe is a name from elsewhere as the name of a file or folder.
func safe(s string) string {
	s = strings.Map(func(r rune) rune {
		if r == '-' || r == '_' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r > 0x7f && r != 0xfffd {
			return r
		}
		return '_'
	}, s)
	if s == "" {
		return "_"
	}
	const longest = 100
	return strings.ToValidUTF8(s[:min(len(s), longest)], "")
}

// cocoFile is annotations.json: https://cocodataset.org/#format-data.
type cocoFile struct {
	Info        map[string]string `json:"info"`
	Images      []cocoImage       `json:"images"`
	Annotations []cocoAnnotation  `json:"annotations"`
	Categories  []cocoCategory    `json:"categories"`
}

type cocoImage struct {
	ID       int    `json:"id"`
	File     string `json:"file_name"`
	Width    int    `json:"width"`
	Height   int    `json:"height"`
	Captured string `json:"date_captured"`
}

type cocoAnnotation struct {
	ID       int     `json:"id"`
	Image    int     `json:"image_id"`
	Category int     `json:"category_id"`
	Box      [4]int  `json:"bbox"` // the whole picture
	Area     int     `json:"area"`
	Crowd    int     `json:"iscrowd"`
	Score    float64 `json:"score"`
}

type cocoCategory struct {
	ID   int    `json:"id"`
	Name string `json:"name"`
}

// sides are those of a picture that was written.
func (p *pull) sides(name string) (width, height int, err error) {
	f, err := os.Open(filepath.Join(p.out, filepath.FromSlash(name)))
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	c, _, err := image.DecodeConfig(f)
	if err != nil {
		return 0, 0, fmt.Errorf("%s: %w", name, err)
	}
	return c.Width, c.Height, nil
}

// coco writes pictures with an annotation for each whose right class was said.
func (p *pull) coco(ctx context.Context, samples []web.CapturedView) error {
	f := cocoFile{Info: map[string]string{"description": "captured by " + p.capture}, Images: []cocoImage{}, Annotations: []cocoAnnotation{}, Categories: []cocoCategory{}}
	ids := map[string]int{}
	for _, s := range samples {
		files, err := p.files(ctx, &s, "images")
		if err != nil {
			return err
		}
		at := -1
		var width, height int
		for i, name := range files {
			if strings.HasSuffix(name, ".npy") || at >= 0 {
				continue
			}
			at = i
			if width, height, err = p.sides(name); err != nil {
				return err
			}
		}
		if at < 0 {
			return &fleet.Error{Code: "capture.format", Message: "the inputs of " + s.Release + " are no pictures", Next: "pull with --format folder"}
		}
		f.Images = append(f.Images, cocoImage{len(f.Images) + 1, strings.TrimPrefix(files[at], "images/"), width, height, s.At.UTC().Format("2006-01-02 15:04:05")})
		if s.Label == "" {
			continue
		}
		if ids[s.Label] == 0 {
			ids[s.Label] = len(ids) + 1
			f.Categories = append(f.Categories, cocoCategory{ids[s.Label], s.Label})
		}
		f.Annotations = append(f.Annotations, cocoAnnotation{len(f.Annotations) + 1, len(f.Images), ids[s.Label], [4]int{0, 0, width, height}, width * height, 0, s.Score})
	}
	return p.json("annotations.json", f)
}
