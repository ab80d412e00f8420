package bundle

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"math"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/dunlin-edge/dunlin/shared/sketch"
	"github.com/dunlin-edge/dunlin/shared/tflite"
	"github.com/dunlin-edge/dunlin/shared/tflite/tflitetest"
	"github.com/google/go-cmp/cmp"
)

// sample is a contract with every key set, fitting sampleFiles.
func sample() *Contract {
	score := sketch.NewHistogram(0, 1, 20)
	for range 30 {
		score.Add(0.99)
	}
	return &Contract{
		Number: ContractNumber, Kind: KindModel, Model: "meter-digits", Version: "1.1.0-rc.1", File: "model.tflite",
		Runtime: &RuntimeNeed{Name: "litert", Min: "2.1.6"}, Hardware: "arch in (amd64,arm64),!hold",
		Inputs:  []Tensor{{Name: "image", DType: "FP32", Shape: []int{1, 3}, Meaning: &Meaning{Kind: "image", Colour: "gray", Range: [2]float64{0, 1}}}},
		Outputs: []Tensor{{Name: "scores", DType: "FP32", Shape: []int{1, 3}, Meaning: &Meaning{Kind: "classes", Score: "softmax"}}},
		Labels:  "labels.txt", State: "none", Serve: "worker",
		Golden:     &Golden{File: "golden.npz", Cases: 2, Tolerance: map[string]Tolerance{"scores": {Relative: 0.05, Absolute: 0.1, Top: 1, Pass: 0.9}}},
		Budgets:    []Budget{{Class: "any", LatencyP95US: 5000, PeakMemoryKB: 65536, StartMS: 1000}},
		Watch:      &Watch{Output: "scores", Score: "max"},
		Reference:  &Reference{Samples: 30, Score: score, Classes: []uint64{10, 10, 10}},
		Probation:  Probation{Minutes: 0.5, Requests: 200},
		Provenance: &Provenance{Card: "card.md", Licence: "Apache-2.0", Commit: "abc", DataSet: "digits"},
	}
}

func sampleFiles() map[string][]byte {
	data := float32s(0.1, 0.2, 0.7, 0.7, 0.2, 0.1)
	return map[string][]byte{
		"model.tflite": tflitetest.Marshal(tflitetest.Classifier(3)),
		"labels.txt":   []byte("zero\none\ntwo\n"),
		"golden.npz":   npz(map[string][]byte{"image": npy("<f4", "2, 3", data), "scores": npy("<f4", "2, 3", data)}, true),
		"card.md":      []byte("# Meter digits\n"),
	}
}

func sources(files map[string][]byte) []Source {
	var list []Source
	for path, b := range files {
		list = append(list, Source{Path: path, Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }})
	}
	return list
}

// layout packs and lays out a bundle in memory.
func layout(t *testing.T, c *Contract, files map[string][]byte) (fstest.MapFS, *Packed) {
	t.Helper()
	p, err := Pack(c, sources(files))
	if err != nil {
		t.Fatal(err)
	}
	index, _ := json.Marshal(Index{SchemaVersion: 2, Manifests: []Descriptor{{MediaType: MediaTypeManifest, Digest: p.Digest, Size: int64(len(p.Raw))}}})
	fsys := fstest.MapFS{LayoutFile: {Data: []byte(LayoutVersion)}, LayoutIndex: {Data: index}}
	blobs := [][]byte{p.Raw, p.RawConfig, p.RawContract}
	for _, b := range files {
		blobs = append(blobs, b)
	}
	for _, b := range blobs {
		fsys[BlobPath(DigestOf(b))] = &fstest.MapFile{Data: b}
	}
	return fsys, p
}

func TestPackAndOpen(t *testing.T) {
	fsys, p := layout(t, sample(), sampleFiles())
	b, err := OpenLayout(fsys)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Verify(); err != nil {
		t.Error(err)
	}
	if err := b.Check(); err != nil {
		t.Error(err)
	}
	if d := cmp.Diff(sample(), b.Contract); d != "" {
		t.Error(d)
	}
	if b.Digest != p.Digest {
		t.Errorf("digest %s, packed as %s", b.Digest, p.Digest)
	}
	labels, err := b.ReadFile("labels.txt")
	if err != nil || string(labels) != "zero\none\ntwo\n" {
		t.Errorf("labels: %q, %v", labels, err)
	}
	if n := len(b.Manifest.Blobs()); n != 6 {
		t.Errorf("%d blobs", n)
	}
	again, err := Pack(sample(), sources(sampleFiles())) // of a map: in another order
	if err != nil || again.Digest != p.Digest {
		t.Errorf("packed again: %s, %v", again.Digest, err)
	}
	r := b.Release(7)
	if r.Counter != 7 || r.Model != "meter-digits" || r.Size != b.Manifest.Size()+int64(len(p.Raw)) || r.Needs.Min != "2.1.6" {
		t.Errorf("release %+v", r)
	}
}

// The stored form may not change under a number: older devices read it.
func TestGoldenDigest(t *testing.T) {
	p, err := Pack(sample(), sources(map[string][]byte{"model.tflite": []byte("m"), "labels.txt": []byte("l"), "golden.npz": []byte("g")}))
	if err != nil {
		t.Fatal(err)
	}
	const want = "sha256:19de36fdac1479904a1b9e49e9c9b6edc0cb6525024d944e4fa9b9fefa3f8fd9"
	if p.Digest != want {
		t.Errorf("the sample bundle has digest %s, it had %s:\n%s\n%s", p.Digest, want, p.Raw, p.RawContract)
	}
}

func TestOpenRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		code  string
		spoil func(fsys fstest.MapFS, p *Packed)
	}{
		"blob missing":   {CodeBlobMissing, func(f fstest.MapFS, p *Packed) { delete(f, BlobPath(p.Manifest.Layers[1].Digest)) }},
		"blob truncated": {CodeBlobSize, func(f fstest.MapFS, p *Packed) { x := f[BlobPath(p.Manifest.Layers[1].Digest)]; x.Data = x.Data[1:] }},
		"blob longer": {CodeBlobSize, func(f fstest.MapFS, p *Packed) {
			x := f[BlobPath(p.Manifest.Layers[1].Digest)]
			x.Data = append(x.Data, 0)
		}},
		"blob altered":     {CodeBlobDigest, func(f fstest.MapFS, p *Packed) { x := f[BlobPath(p.Manifest.Layers[1].Digest)]; x.Data = flip(x.Data) }},
		"config altered":   {CodeBlobDigest, func(f fstest.MapFS, p *Packed) { x := f[BlobPath(p.Manifest.Config.Digest)]; x.Data = flip(x.Data) }},
		"contract altered": {CodeBlobDigest, func(f fstest.MapFS, p *Packed) { x := f[BlobPath(p.Manifest.Contract().Digest)]; x.Data = flip(x.Data) }},
		"contract missing": {CodeBlobMissing, func(f fstest.MapFS, p *Packed) { delete(f, BlobPath(p.Manifest.Contract().Digest)) }},
		"manifest altered": {CodeBlobDigest, func(f fstest.MapFS, p *Packed) { x := f[BlobPath(p.Digest)]; x.Data = flip(x.Data) }},
		"manifest missing": {CodeBlobMissing, func(f fstest.MapFS, p *Packed) { delete(f, BlobPath(p.Digest)) }},
		"no layout":        {CodeLayoutMalformed, func(f fstest.MapFS, p *Packed) { delete(f, LayoutFile) }},
		"no index":         {CodeLayoutMalformed, func(f fstest.MapFS, p *Packed) { delete(f, LayoutIndex) }},
		"index no JSON":    {CodeLayoutMalformed, func(f fstest.MapFS, p *Packed) { f[LayoutIndex].Data = []byte("{") }},
		"index of nothing": {CodeLayoutMalformed, func(f fstest.MapFS, p *Packed) { f[LayoutIndex].Data = []byte(`{"manifests":[]}`) }},
		"index out of place": {CodeManifestDigest, func(f fstest.MapFS, p *Packed) {
			f[LayoutIndex].Data = []byte(`{"manifests":[{"digest":"sha256:../../x","size":3}]}`)
		}},
	} {
		fsys, p := layout(t, sample(), sampleFiles())
		c.spoil(fsys, p)
		b, err := OpenLayout(fsys)
		if err == nil {
			err = b.Verify()
		}
		if Code(err) != c.code {
			t.Errorf("%s: %v (%s), want %s", name, err, Code(err), c.code)
		}
	}
}

func flip(b []byte) []byte {
	c := slices.Clone(b)
	c[len(c)/2] ^= 1
	return c
}

func TestManifestRefuses(t *testing.T) {
	_, p := layout(t, sample(), sampleFiles())
	good := string(p.Raw)
	digest := p.Manifest.Layers[1].Digest
	for name, c := range map[string]struct{ code, old, new string }{
		"path up":              {CodeManifestPath, `"card.md"`, `"../card.md"`},
		"path up inside":       {CodeManifestPath, `"card.md"`, `"a/../../card.md"`},
		"path absolute":        {CodeManifestPath, `"card.md"`, `"/etc/passwd"`},
		"path with backslash":  {CodeManifestPath, `"card.md"`, `"..\\card.md"`},
		"path with a drive":    {CodeManifestPath, `"card.md"`, `"c:card.md"`},
		"path empty":           {CodeManifestPath, `"card.md"`, `""`},
		"path of the folder":   {CodeManifestPath, `"card.md"`, `"."`},
		"path hidden":          {CodeManifestPath, `"card.md"`, `".card.md"`},
		"path like an option":  {CodeManifestPath, `"card.md"`, `"-rf"`},
		"path with a null":     {CodeManifestPath, `"card.md"`, `"card\u0000.md"`},
		"path with a newline":  {CodeManifestPath, `"card.md"`, `"card\n.md"`},
		"path too long":        {CodeManifestPath, `"card.md"`, `"` + strings.Repeat("a", 201) + `"`},
		"path of the contract": {CodeManifestPath, `"card.md"`, `"contract.json"`},
		"path of the record":   {CodeManifestPath, `"card.md"`, `"slot.json"`},
		"path twice":           {CodeManifestDuplicate, `"card.md"`, `"labels.txt"`},
		"path twice by case":   {CodeManifestDuplicate, `"card.md"`, `"LABELS.txt"`},
		"file and folder":      {CodeManifestDuplicate, `"card.md"`, `"labels.txt/card.md"`},
		"digest short":         {CodeManifestDigest, digest, digest[:len(digest)-1]},
		"digest in capitals":   {CodeManifestDigest, digest, "sha256:" + strings.ToUpper(digest[7:])},
		"digest of a path":     {CodeManifestDigest, digest, "sha256:../../../etc/passwd"},
		"digest weak":          {CodeManifestDigest, digest, "md5:d41d8cd98f00b204e9800998ecf8427e"},
		"size negative":        {CodeManifestSize, `"size":15`, `"size":-15`},
		"size immense":         {CodeManifestSize, `"size":15`, `"size":9000000000000000000`},
		"one blob, two sizes":  {CodeManifestSize, digest + `","size":15`, p.Manifest.Layers[2].Digest + `","size":15`},
		"size no number":       {CodeManifestMalformed, `"size":15`, `"size":"15"`},
		"other artifact":       {CodeManifestKind, ArtifactType, "application/vnd.example"},
		"docker":               {CodeManifestKind, `"mediaType":"` + MediaTypeManifest, `"mediaType":"application/vnd.docker.distribution.manifest.v2+json`},
		"no contract":          {CodeManifestPath, MediaTypeContract, MediaTypeDoc},
		"duplicate key":        {CodeManifestMalformed, `"schemaVersion":2`, `"schemaVersion":2,"schemaVersion":2`},
		"null":                 {CodeManifestMalformed, `"schemaVersion":2`, `"schemaVersion":2,"subject":null`},
		"trailing":             {CodeManifestMalformed, good, good + `{}`},
		"not JSON":             {CodeManifestMalformed, good, "\x00"},
		"empty":                {CodeManifestMalformed, good, ""},
		"too large":            {CodeManifestTooLarge, good, strings.Repeat(" ", MaxManifest+1)},
	} {
		bad := strings.Replace(good, c.old, c.new, 1)
		if bad == good {
			t.Errorf("%s: nothing was spoiled", name)
			continue
		}
		if _, err := ParseManifest([]byte(bad)); Code(err) != c.code {
			t.Errorf("%s: %v (%s), want %s", name, err, Code(err), c.code)
		}
	}
	if _, err := ParseManifest([]byte(strings.Replace(good, `"schemaVersion":2`, `"schemaVersion":2,"future":{"a":1}`, 1))); err != nil {
		t.Errorf("a key of other tools: %v", err)
	}
}

// A contract that names a file which the manifest lacks.
func TestContractWithoutFile(t *testing.T) {
	files := sampleFiles()
	delete(files, "labels.txt")
	if _, err := Pack(sample(), sources(files)); Code(err) != CodeContractMissing {
		t.Errorf("pack: %v", err)
	}
	// Somebody else's packer forgot it.
	c := sample()
	c.Labels = ""
	fsys, p := layout(t, c, files)
	c.Labels = "labels.txt"
	contract, err := c.Encode()
	if err != nil {
		t.Fatal(err)
	}
	fsys[BlobPath(DigestOf(contract))] = &fstest.MapFile{Data: contract}
	p.Manifest.Layers[0] = describeBytes(contract, MediaTypeContract, ContractPath)
	raw, _ := json.Marshal(p.Manifest)
	if _, err := Read(raw, Layout{fsys}); Code(err) != CodeContractMissing {
		t.Errorf("open: %v", err)
	}
}

func TestContractRefuses(t *testing.T) {
	b, err := sample().Encode()
	if err != nil {
		t.Fatal(err)
	}
	good := string(b)
	for name, c := range map[string]struct{ code, old, new string }{
		"unknown key":         {CodeContractMalformed, `"kind":"model"`, `"kind":"model","extra":1`},
		"unknown deep key":    {CodeContractMalformed, `"min":"2.1.6"`, `"min":"2.1.6","max":"3"`},
		"key in other case":   {CodeContractMalformed, `"version":"1.1.0-rc.1"`, `"Version": "1.1.0-rc.1"`},
		"duplicate key":       {CodeContractMalformed, `"kind":"model"`, `"kind":"model","kind":"model"`},
		"duplicate tolerance": {CodeContractMalformed, `"scores":{`, `"scores":{"top": 1}, "scores": {`},
		"null":                {CodeContractMalformed, `"state":"none"`, `"state":null`},
		"null shape":          {CodeContractMalformed, `"labels":"labels.txt"`, `"labels":"labels.txt","budgets":null`},
		"trailing":            {CodeContractMalformed, good, good + "1"},
		"text for a number":   {CodeContractMalformed, `"cases":2`, `"cases":"2"`},
		"fraction of a case":  {CodeContractMalformed, `"cases":2`, `"cases":2.5`},
		"deep":                {CodeContractMalformed, good, strings.Repeat("[", 100) + strings.Repeat("]", 100)},
		"empty":               {CodeContractMalformed, good, ""},
		"newer":               {CodeContractNumber, `"contract":1`, `"contract":2, "future": true`},
		"older":               {CodeContractNumber, `"contract":1`, `"contract":0`},
		"too large":           {CodeContractTooLarge, good, strings.Repeat(" ", MaxContract+1)},
		"kind":                {CodeContractInvalid, `"kind":"model"`, `"kind":"script"`},
		"model's name":        {CodeContractInvalid, `"meter-digits"`, `"../meter"`},
		"version":             {CodeContractInvalid, `"1.1.0-rc.1"`, `"1.1"`},
		"file up":             {CodeContractInvalid, `"file":"model.tflite"`, `"file":"../model.tflite"`},
		"file is contract":    {CodeContractInvalid, `"file":"model.tflite"`, `"file":"contract.json"`},
		"hardware":            {CodeContractInvalid, `"arch in (amd64,arm64),!hold"`, `"arch in (("`},
		"dtype":               {CodeContractInvalid, `"dtype":"FP32"`, `"dtype":"STRING"`},
		"meaning":             {CodeContractInvalid, `"kind":"image"`, `"kind":"picture"`},
		"state":               {CodeContractInvalid, `"state":"none"`, `"state":"some"`},
		"serve":               {CodeContractInvalid, `"serve":"worker"`, `"serve":"root"`},
		"custom in a worker":  {CodeContractInvalid, `"serve":"worker"`, `"serve":"worker","custom_operators":["Mine"]`},
		"custom twice":        {CodeContractInvalid, `"serve":"worker"`, `"serve":"file","custom_operators":["Mine","Mine"]`},
		"custom unnamed":      {CodeContractInvalid, `"serve":"worker"`, `"serve":"file","custom_operators":[""]`},
		"golden cases":        {CodeContractInvalid, `"cases":2`, `"cases":0`},
		"tolerance of what":   {CodeContractInvalid, `"scores":{`, `"noscores":{`},
		"tolerance beyond 1":  {CodeContractInvalid, `"relative":0.05`, `"relative":1.5`},
		"budget":              {CodeContractInvalid, `"start_ms":1000`, `"start_ms":-1`},
		"watch":               {CodeContractInvalid, `"output":"scores"`, `"output":"image"`},
		"probation":           {CodeContractInvalid, `"minutes":0.5`, `"minutes":-0.5`},
		"reference":           {CodeContractInvalid, `"samples":30`, `"samples":31`},
		"reference's entropy": {CodeContractInvalid, `"samples":30`, `"samples":30,"entropy":{"lo":0,"hi":2,"bins":[30]}`},
		"reference's inputs":  {CodeContractInvalid, `"samples":30`, `"samples":30,"inputs":[{},{},{},{},{}]`},
		"runtime":             {CodeContractInvalid, `"min":"2.1.6"`, `"min":"latest"`},
	} {
		bad := strings.Replace(good, c.old, c.new, 1)
		if bad == good {
			t.Errorf("%s: nothing was spoiled", name)
			continue
		}
		if _, err := DecodeContract([]byte(bad)); Code(err) != c.code {
			t.Errorf("%s: %v (%s), want %s", name, err, Code(err), c.code)
		}
	}
	if c, err := DecodeContract(b); err != nil || !cmp.Equal(c, sample()) {
		t.Errorf("the good one: %v", err)
	}
}

// A custom operator is refused, a TensorFlow one too, unless the contract declares it.
func TestCustomOperators(t *testing.T) {
	m := tflitetest.Classifier(3)
	m.OpCodes[0] = tflite.OpCode{Builtin: 32, Custom: "FlexErf", Version: 1}
	file := tflitetest.Marshal(m)
	c := sample()
	c.Serve, c.Custom = "file", []string{"Other"}
	if err := c.CheckModel(file); Code(err) != CodeModelCheck {
		t.Errorf("not declared: %v", err)
	}
	c.Custom = append(c.Custom, "FlexErf")
	if err := errors.Join(c.Validate(), c.CheckModel(file)); err != nil {
		t.Errorf("declared: %v", err)
	}
}

// A version of an operator that the known runtime lacks is left to a newer one.
func TestNewerRuntime(t *testing.T) {
	m := tflitetest.Classifier(3)
	m.OpCodes[0].Version = 9
	file := tflitetest.Marshal(m)
	c := sample()
	for min, want := range map[string]string{"2.1.6": CodeModelCheck, tflite.RuntimeVersion: CodeModelCheck, "99.0.0": ""} {
		c.Runtime.Min = min
		if err := c.CheckModel(file); Code(err) != want {
			t.Errorf("needs %s: %v", min, err)
		}
	}
}

func TestContractShapes(t *testing.T) {
	for name, spoil := range map[string]func(x *Tensor){
		"no shape":        func(x *Tensor) { x.Shape = nil },
		"zero":            func(x *Tensor) { x.Shape = []int{1, 0} },
		"below -1":        func(x *Tensor) { x.Shape = []int{-2} },
		"immense":         func(x *Tensor) { x.Shape = []int{1 << 20, 1 << 20} },
		"rank 9":          func(x *Tensor) { x.Shape = []int{1, 1, 1, 1, 1, 1, 1, 1, 1} },
		"no name":         func(x *Tensor) { x.Name = "" },
		"scale negative":  func(x *Tensor) { x.Quant = &Quant{Scale: []float32{-1}, Zero: []int64{0}} },
		"scale NaN":       func(x *Tensor) { x.Quant = &Quant{Scale: []float32{float32(math.NaN())}, Zero: []int64{0}} },
		"zeros missing":   func(x *Tensor) { x.Quant = &Quant{Scale: []float32{1}} },
		"scales off axis": func(x *Tensor) { x.Quant = &Quant{Scale: []float32{1, 1}, Zero: []int64{0, 0}, Axis: 1} },
	} {
		c := sample()
		spoil(&c.Inputs[0])
		if _, err := c.Encode(); Code(err) != CodeContractInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRuntimeContract(t *testing.T) {
	c := &Contract{Number: 1, Kind: KindRuntime, Model: "runtime-litert-arm64", Version: "2.3.0", File: "libLiteRt.so",
		ABI: &RuntimeABI{Name: "litert", Version: "2.3.0", Arch: "arm64", GLibC: "2.34"}, Hardware: "arch=arm64"}
	b, err := c.Encode()
	if err != nil {
		t.Fatal(err)
	}
	back, err := DecodeContract(b)
	if err != nil || !cmp.Equal(c, back) {
		t.Errorf("%v\n%s", err, cmp.Diff(c, back))
	}
	c.ABI = nil
	if Code(c.Validate()) != CodeContractInvalid {
		t.Error("a runtime without ABI passed")
	}
}

func TestMetBy(t *testing.T) {
	need := &RuntimeNeed{Name: "litert", Min: "2.1.6"}
	for version, want := range map[string]bool{"2.1.6": true, "2.3.0": true, "2.10.0": true, "3.0": true, "2.1.5": false, "2.1": false, "1.9.9": false} {
		if need.MetBy(&RuntimeABI{Name: "litert", Version: version}) != want {
			t.Errorf("%s: not %v", version, want)
		}
	}
	if need.MetBy(&RuntimeABI{Name: "onnx", Version: "9.0"}) || need.MetBy(nil) || !(*RuntimeNeed)(nil).MetBy(nil) {
		t.Error("another runtime, none, or no need")
	}
}

func TestSelector(t *testing.T) {
	facts := map[string]string{"arch": "arm64", "board": "rpi5", "cores": "4"}
	for text, want := range map[string]bool{
		"": true, " ": true, "arch": true, "!arch": false, "gpu": false, "!gpu": true,
		"arch=arm64": true, "arch==arm64": true, "arch=amd64": false, "arch!=amd64": true, "gpu!=yes": true,
		"board in (rpi4, rpi5)": true, "board in (rpi4)": false, "board notin (rpi4)": true, "gpu notin (a,b)": true, "gpu in (a)": false,
		"arch=arm64,board in (rpi4,rpi5),!hold": true, "arch=arm64, cores=8": false,
	} {
		s, err := ParseSelector(text)
		if err != nil || s.Matches(facts) != want {
			t.Errorf("%q: %v, %v", text, s.Matches(facts), err)
		}
	}
	for _, text := range []string{",", "=", "a=", "a in b", "a in (b", "a in ()x", "A=b", "a b", "!", "a>4", strings.Repeat("a,", 600) + "a"} {
		if _, err := ParseSelector(text); text != "a=" && Code(err) != CodeSelectorMalformed {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestCheckModel(t *testing.T) {
	file := sampleFiles()["model.tflite"]
	for name, c := range map[string]struct {
		code  string
		spoil func(c *Contract)
	}{
		"as packed":     {"", func(*Contract) {}},
		"dtype":         {CodeModelMismatch, func(c *Contract) { c.Inputs[0].DType = "INT8" }},
		"shape":         {CodeModelMismatch, func(c *Contract) { c.Inputs[0].Shape = []int{1, 4} }},
		"rank":          {CodeModelMismatch, func(c *Contract) { c.Outputs[0].Shape = []int{3} }},
		"name":          {CodeModelMismatch, func(c *Contract) { c.Outputs[0].Name = "logits" }},
		"quantization":  {CodeModelMismatch, func(c *Contract) { c.Inputs[0].Quant = &Quant{Scale: []float32{1}, Zero: []int64{0}} }},
		"one too many":  {CodeModelMismatch, func(c *Contract) { c.Inputs = append(c.Inputs, Tensor{Name: "more"}) }},
		"one forgotten": {CodeModelMismatch, func(c *Contract) { c.Outputs = nil }},
		"external":      {"", func(c *Contract) { c.Outputs, c.Serve = nil, "external" }},
	} {
		contract := sample()
		c.spoil(contract)
		if err := contract.CheckModel(file); Code(err) != c.code {
			t.Errorf("%s: %v", name, err)
		}
	}
	for i := range 100 {
		if code := Code(sample().CheckModel(file[:i*len(file)/100])); code == "" {
			t.Errorf("cut at %d %%: no refusal", i)
		}
	}
	custom := tflitetest.Classifier(3)
	custom.OpCodes[0].Builtin, custom.OpCodes[0].Custom = 32, "FlexErf"
	if err := sample().CheckModel(tflitetest.Marshal(custom)); Code(err) != CodeModelCheck || !strings.Contains(err.Error(), "FlexErf") {
		t.Errorf("a custom operator: %v", err)
	}
}

func TestLabels(t *testing.T) {
	for text, want := range map[string]string{"a\nb\nc\n": "", "a\r\nb\r\nc": "", "a\nb": CodeModelMismatch, "": CodeContractInvalid, "\n\n": CodeContractInvalid} {
		if err := sample().CheckLabels([]byte(text)); Code(err) != want {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func float32s(list ...float32) []byte {
	var b []byte
	for _, v := range list {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
	}
	return b
}

func FuzzDecodeContract(f *testing.F) {
	b, _ := sample().Encode()
	f.Add(b)
	f.Add([]byte(`{"contract":1,"kind":"runtime"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := DecodeContract(b)
		if err != nil {
			return
		}
		again, err := c.Encode()
		if err != nil {
			t.Fatalf("what was decoded is not encoded: %v", err)
		}
		if _, err := DecodeContract(again); err != nil {
			t.Fatalf("what was encoded is not decoded: %v\n%s", err, again)
		}
	})
}

func FuzzParseManifest(f *testing.F) {
	p, _ := Pack(sample(), sources(sampleFiles()))
	f.Add(p.Raw)
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := ParseManifest(b)
		if err != nil {
			return
		}
		for _, l := range m.Layers {
			if ValidPath(l.Path()) != nil || !ValidDigest(l.Digest) {
				t.Fatalf("%+v passed", l)
			}
		}
	})
}

func FuzzSelector(f *testing.F) {
	f.Add("arch in (a,b),!hold,c!=d")
	f.Fuzz(func(t *testing.T, s string) {
		if sel, err := ParseSelector(s); err == nil {
			sel.Matches(map[string]string{"arch": "a"})
		}
	})
}
