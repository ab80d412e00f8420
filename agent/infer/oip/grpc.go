package oip

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"

	"github.com/dunlin-edge/dunlin/agent/infer"
	"github.com/dunlin-edge/dunlin/agent/infer/oip/elements"
	"github.com/dunlin-edge/dunlin/agent/infer/oip/oippb"
	"github.com/dunlin-edge/dunlin/agent/infer/oip/stats"
)

// service is the gRPC service's name; a procedure is "/service/name".
const service = "/inference.GRPCInferenceService/"

// maxMessage bounds a gRPC message: the longest body and its frame of names.
const maxMessage = maxBody + 64<<10

// handling is of every procedure. Requests may be packed; answers are not, as clients
// say on every request that they could unpack, and packing tensors takes longer than
// sending them.
var handling = []connect.HandlerOption{connect.WithReadMaxBytes(maxMessage), connect.WithCompressMinBytes(math.MaxInt)}

// grpcRoutes serves the protocol over gRPC, which comes as HTTP/2.
func (f *front) grpcRoutes(mux *http.ServeMux) {
	unary(f, mux, "ServerLive", func(context.Context, *oippb.ServerLiveRequest) (*oippb.ServerLiveResponse, error) {
		return &oippb.ServerLiveResponse{Live: true}, nil
	})
	unary(f, mux, "ServerReady", func(context.Context, *oippb.ServerReadyRequest) (*oippb.ServerReadyResponse, error) {
		return &oippb.ServerReadyResponse{Ready: f.allReady()}, nil
	})
	unary(f, mux, "ServerMetadata", func(context.Context, *oippb.ServerMetadataRequest) (*oippb.ServerMetadataResponse, error) {
		return &oippb.ServerMetadataResponse{Name: "dunlin", Version: f.version, Extensions: f.extensions()}, nil
	})
	unary(f, mux, "ModelReady", f.grpcModelReady)
	unary(f, mux, "ModelMetadata", f.grpcMetadata)
	unary(f, mux, "ModelConfig", f.grpcConfig)
	unary(f, mux, "ModelStatistics", f.grpcStatistics)
	unary(f, mux, "RepositoryIndex", func(_ context.Context, r *oippb.RepositoryIndexRequest) (*oippb.RepositoryIndexResponse, error) {
		out := &oippb.RepositoryIndexResponse{}
		for _, e := range f.entries(r.Ready) {
			out.Models = append(out.Models, &oippb.RepositoryIndexResponse_ModelIndex{Name: e.Name, Version: e.Version, State: e.State, Reason: e.Reason})
		}
		return out, nil
	})
	unary(f, mux, "ModelInfer", f.grpcInfer)
	stream := service + "ModelStreamInfer"
	mux.Handle("POST "+stream, f.counted(connect.NewBidiStreamHandler(stream, f.grpcStream, handling...)))
	f.grpcMemory(mux)
	mux.HandleFunc("POST "+service, func(w http.ResponseWriter, r *http.Request) {
		err := fmt.Errorf("there is no %.80s here; which release runs is for the fleet to say", strings.TrimPrefix(r.URL.Path, service))
		connect.NewErrorWriter().Write(w, r, connect.NewError(connect.CodeUnimplemented, err)) // or nothing can be told
	})
}

// unary serves one procedure; do's errors get the code that fits.
func unary[Q, A any](f *front, mux *http.ServeMux, name string, do func(context.Context, *Q) (*A, error)) {
	h := connect.NewUnaryHandler(service+name, func(ctx context.Context, r *connect.Request[Q]) (*connect.Response[A], error) {
		a, err := do(ctx, r.Msg)
		if err != nil {
			return nil, connect.NewError(codeOf(err), err)
		}
		return connect.NewResponse(a), nil
	}, handling...)
	mux.Handle("POST "+service+name, f.counted(h))
}

// codeOf is the gRPC code of an error.
func codeOf(err error) connect.Code {
	if errors.Is(err, infer.ErrBusy) {
		return connect.CodeResourceExhausted
	}
	switch statusOf(err) {
	case http.StatusNotFound:
		return connect.CodeNotFound
	case http.StatusBadRequest:
		return connect.CodeInvalidArgument
	case http.StatusServiceUnavailable:
		return connect.CodeUnavailable
	case http.StatusGatewayTimeout:
		return connect.CodeDeadlineExceeded
	}
	return connect.CodeInternal
}

// counted takes room for a body as it comes, since nothing says before how long it
// is; what finds no room is refused.
func (f *front) counted(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b := &countedBody{ReadCloser: r.Body, f: f}
		defer func() { f.bodies.Release(b.taken) }()
		r.Body = b
		h.ServeHTTP(w, r)
	})
}

type countedBody struct {
	io.ReadCloser
	f     *front
	taken int64
}

// Read implements io.Reader.
func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if !b.f.bodies.TryAcquire(int64(n)) {
		return 0, connect.NewError(connect.CodeResourceExhausted, errors.New("requests of too many bytes are being read: ask again later"))
	}
	b.taken += int64(n)
	return n, err
}

func (f *front) grpcModelReady(_ context.Context, r *oippb.ModelReadyRequest) (*oippb.ModelReadyResponse, error) {
	s, err := f.find(r.Name, r.Version)
	return &oippb.ModelReadyResponse{Ready: err == nil && f.e.Ready(s.Key.Model)}, nil
}

func (f *front) grpcMetadata(_ context.Context, r *oippb.ModelMetadataRequest) (*oippb.ModelMetadataResponse, error) {
	s, err := f.find(r.Name, r.Version)
	if err != nil {
		return nil, err
	}
	list := func(ts []tensorMeta) (out []*oippb.ModelMetadataResponse_TensorMetadata) {
		for _, t := range ts {
			out = append(out, &oippb.ModelMetadataResponse_TensorMetadata{Name: t.Name, Datatype: t.Datatype, Shape: wide(t.Shape)})
		}
		return out
	}
	return &oippb.ModelMetadataResponse{Name: s.Key.Model, Versions: []string{s.Version}, Platform: platform, Inputs: list(describe(s.Contract.Inputs)), Outputs: list(describe(s.Contract.Outputs))}, nil
}

func wide(v []int) []int64 {
	out := make([]int64, len(v))
	for i, x := range v {
		out[i] = int64(x)
	}
	return out
}

func (f *front) grpcConfig(_ context.Context, r *oippb.ModelConfigRequest) (*oippb.ModelConfigResponse, error) {
	s, err := f.find(r.Name, r.Version)
	if err != nil {
		return nil, err
	}
	c := &oippb.ModelConfig{Name: s.Key.Model, Platform: platform, Backend: platform}
	dtype := func(t tensorMeta) oippb.DataType { return oippb.DataType(oippb.DataType_value["TYPE_"+t.Datatype]) }
	for _, t := range describe(s.Contract.Inputs) {
		c.Input = append(c.Input, &oippb.ModelInput{Name: t.Name, DataType: dtype(t), Dims: wide(t.Shape)})
	}
	for _, t := range describe(s.Contract.Outputs) {
		c.Output = append(c.Output, &oippb.ModelOutput{Name: t.Name, DataType: dtype(t), Dims: wide(t.Shape)})
	}
	return &oippb.ModelConfigResponse{Config: c}, nil
}

// grpcStatistics tells of one model, or of all when none is named.
func (f *front) grpcStatistics(_ context.Context, r *oippb.ModelStatisticsRequest) (*oippb.ModelStatisticsResponse, error) {
	list := f.stats.List(func(stats.Version) bool { return true })
	if r.Name != "" {
		s, err := f.find(r.Name, r.Version)
		if err != nil {
			return nil, err
		}
		list = f.stats.One(s)
	}
	out := &oippb.ModelStatisticsResponse{}
	for _, m := range list {
		of := func(name string) *oippb.StatisticDuration {
			return &oippb.StatisticDuration{Count: m.Stats[name].Count, Ns: uint64(m.Stats[name].NS)}
		}
		out.ModelStats = append(out.ModelStats, &oippb.ModelStatistics{
			Name: m.Name, Version: m.Version, LastInference: uint64(m.Last), InferenceCount: m.Count, ExecutionCount: m.Runs,
			InferenceStats: &oippb.InferStatistics{
				Success: of("success"), Fail: of("fail"), Queue: of("queue"),
				ComputeInput: of("compute_input"), ComputeInfer: of("compute_infer"), ComputeOutput: of("compute_output"),
			},
		})
	}
	return out, nil
}

func (f *front) grpcInfer(ctx context.Context, r *oippb.ModelInferRequest) (*oippb.ModelInferResponse, error) {
	s, err := f.find(r.ModelName, r.ModelVersion)
	if err != nil {
		return nil, err
	}
	req, err := requestOf(r)
	if err != nil {
		return nil, bad(err)
	}
	a, err := f.run(ctx, s, r.ModelVersion, req)
	if err != nil {
		return nil, err
	}
	return messageOf(a), nil
}

// grpcStream answers requests of one stream one after the other. What is wrong with
// one is told in its answer and does not end the stream.
func (f *front) grpcStream(ctx context.Context, stream *connect.BidiStream[oippb.ModelInferRequest, oippb.ModelStreamInferResponse]) error {
	for {
		r, err := stream.Receive()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		out := &oippb.ModelStreamInferResponse{InferResponse: &oippb.ModelInferResponse{Id: r.Id}}
		if a, err := f.grpcInfer(ctx, r); err != nil {
			out.ErrorMessage = err.Error()
		} else {
			out.InferResponse = a
		}
		if err := stream.Send(out); err != nil {
			return err
		}
	}
}

// messageOf writes an answer; its tensors are bytes.
func messageOf(a *answer) *oippb.ModelInferResponse {
	m := &oippb.ModelInferResponse{ModelName: a.by.Key.Model, ModelVersion: a.by.Version, Id: a.id}
	if a.results != nil {
		b, _ := json.Marshal(a.results) // of finite numbers and texts
		m.Parameters = map[string]*oippb.InferParameter{"results": {ParameterChoice: &oippb.InferParameter_StringParam{StringParam: string(b)}}}
	}
	for _, o := range a.outputs {
		x := &oippb.ModelInferResponse_InferOutputTensor{Name: o.name, Datatype: o.datatype, Shape: wide(o.shape)}
		raw := o.raw
		if o.memory != nil {
			raw = nil
			x.Parameters = map[string]*oippb.InferParameter{
				"shared_memory_region":    {ParameterChoice: &oippb.InferParameter_StringParam{StringParam: o.memory.region}},
				"shared_memory_byte_size": {ParameterChoice: &oippb.InferParameter_Int64Param{Int64Param: int64(len(o.raw))}},
				"shared_memory_offset":    {ParameterChoice: &oippb.InferParameter_Int64Param{Int64Param: o.memory.offset}},
			}
		}
		m.Outputs, m.RawOutputContents = append(m.Outputs, x), append(m.RawOutputContents, raw)
	}
	return m
}

// requestOf reads a request. Raw contents, when there are any, are of the inputs
// that do not lie in shared memory, in their order.
func requestOf(m *oippb.ModelInferRequest) (*request, error) {
	r := &request{id: m.Id}
	if len(m.Inputs) > maxTensors || len(m.Outputs) > maxTensors {
		return nil, fmt.Errorf("more than %d tensors", maxTensors)
	}
	micros, err := whole(m.Parameters, "timeout", math.MaxUint32)
	if err != nil {
		return nil, err
	}
	r.timeout = time.Duration(micros) * time.Microsecond
	if err := r.wantsOf(m.Parameters); err != nil {
		return nil, err
	}
	raw := m.RawInputContents
	for _, in := range m.Inputs {
		x := inputTensor{name: in.Name, datatype: in.Datatype, size: -1}
		for _, d := range in.Shape {
			x.shape = append(x.shape, int(min(d, math.MaxInt32)))
		}
		if x.memory, err = windowOf(in.Parameters); err == nil {
			x.from, err = foreignOf(in)
		}
		if err != nil {
			return nil, fmt.Errorf("input %.80q: %w", in.Name, err)
		}
		switch {
		case x.memory != nil:
		case len(m.RawInputContents) > 0 && in.Contents != nil:
			return nil, fmt.Errorf("input %.80q: contents or raw_input_contents, not both", in.Name)
		case len(m.RawInputContents) > 0:
			if len(raw) == 0 {
				return nil, fmt.Errorf("input %.80q has no raw_input_contents", in.Name)
			}
			x.raw, raw = raw[0], raw[1:]
			x.size = int64(len(x.raw))
		case x.from.element != nil:
		default:
			if x.raw, err = elements.Contents(in.Datatype, in.Contents); err != nil {
				return nil, fmt.Errorf("input %.80q: %w", in.Name, err)
			}
			x.size = int64(len(x.raw))
		}
		r.inputs = append(r.inputs, x)
	}
	if len(raw) > 0 {
		return nil, fmt.Errorf("%d raw_input_contents are of no input", len(raw))
	}
	for _, out := range m.Outputs {
		o := outputRequest{name: out.Name}
		if o.memory, err = windowOf(out.Parameters); err == nil {
			var k int64
			k, err = whole(out.Parameters, "classification", maxBody)
			o.classes = int(k)
		}
		if err == nil && o.classes > 0 && o.memory != nil {
			err = errors.New("a classification does not go to shared memory")
		}
		if err != nil {
			return nil, fmt.Errorf("output %.80q: %w", out.Name, err)
		}
		r.outputs = append(r.outputs, o)
	}
	return r, nil
}

// wantsOf reads the parameters that ask for results by name.
func (r *request) wantsOf(from map[string]*oippb.InferParameter) error {
	results, err := textOf(from, "results")
	if err != nil {
		return err
	}
	top, err := whole(from, "top", math.MaxInt32)
	if r.top = int(top); err != nil {
		return err
	}
	return r.wants(results)
}

// whole reads a parameter that is a number from 0 to limit; 0 when it is not there.
func whole(from map[string]*oippb.InferParameter, key string, limit int64) (int64, error) {
	p := from[key]
	if p == nil {
		return 0, nil
	}
	var n int64
	switch v := p.ParameterChoice.(type) {
	case *oippb.InferParameter_Int64Param:
		n = v.Int64Param
	case *oippb.InferParameter_Uint64Param:
		n = int64(min(v.Uint64Param, math.MaxInt64))
	default:
		return 0, fmt.Errorf("%s: a whole number is wanted", key)
	}
	if n < 0 || n > limit {
		return 0, fmt.Errorf("%s is %d, 0 to %d is wanted", key, n, limit)
	}
	return n, nil
}

// windowOf reads the parameters that name a part of a region, nil: none.
func windowOf(from map[string]*oippb.InferParameter) (*window, error) {
	p := from["shared_memory_region"]
	if p == nil {
		return nil, nil
	}
	name, ok := p.ParameterChoice.(*oippb.InferParameter_StringParam)
	if !ok {
		return nil, errors.New("shared_memory_region: a name is wanted")
	}
	w := &window{region: name.StringParam, there: true}
	var err error
	if w.size, err = whole(from, "shared_memory_byte_size", math.MaxInt64); err == nil {
		w.offset, err = whole(from, "shared_memory_offset", math.MaxInt64)
	}
	return w, err
}

func (f *front) grpcMemory(mux *http.ServeMux) {
	allowed := func(do func() error) error {
		if f.memory == nil {
			return bad(errNoMemory)
		}
		if err := do(); err != nil {
			return bad(err)
		}
		return nil
	}
	unary(f, mux, "SystemSharedMemoryStatus", func(_ context.Context, r *oippb.SystemSharedMemoryStatusRequest) (*oippb.SystemSharedMemoryStatusResponse, error) {
		out := &oippb.SystemSharedMemoryStatusResponse{Regions: map[string]*oippb.SystemSharedMemoryStatusResponse_RegionStatus{}}
		return out, allowed(func() error {
			list, err := f.memory.list(r.Name)
			for _, g := range list {
				out.Regions[g.Name] = &oippb.SystemSharedMemoryStatusResponse_RegionStatus{Name: g.Name, Key: g.Key, Offset: uint64(g.Offset), ByteSize: uint64(g.Size)}
			}
			return err
		})
	})
	unary(f, mux, "SystemSharedMemoryRegister", func(_ context.Context, r *oippb.SystemSharedMemoryRegisterRequest) (*oippb.SystemSharedMemoryRegisterResponse, error) {
		if slices.Max([]uint64{r.Offset, r.ByteSize}) > math.MaxInt64 {
			return nil, bad(errors.New("offset and byte_size are too large"))
		}
		return &oippb.SystemSharedMemoryRegisterResponse{}, allowed(func() error {
			return f.memory.register(region{Name: r.Name, Key: r.Key, Offset: int64(r.Offset), Size: int64(r.ByteSize)})
		})
	})
	unary(f, mux, "SystemSharedMemoryUnregister", func(_ context.Context, r *oippb.SystemSharedMemoryUnregisterRequest) (*oippb.SystemSharedMemoryUnregisterResponse, error) {
		return &oippb.SystemSharedMemoryUnregisterResponse{}, allowed(func() error { f.memory.unregister(r.Name); return nil })
	})
	unary(f, mux, "CudaSharedMemoryStatus", func(context.Context, *oippb.CudaSharedMemoryStatusRequest) (*oippb.CudaSharedMemoryStatusResponse, error) {
		return &oippb.CudaSharedMemoryStatusResponse{}, nil
	})
	unary(f, mux, "CudaSharedMemoryUnregister", func(context.Context, *oippb.CudaSharedMemoryUnregisterRequest) (*oippb.CudaSharedMemoryUnregisterResponse, error) {
		return &oippb.CudaSharedMemoryUnregisterResponse{}, nil
	})
}
