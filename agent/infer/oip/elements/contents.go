package elements

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/dunlin-edge/dunlin/agent/infer/oip/oippb"
)

// Contents packs typed contents, of which the one that belongs to the datatype must
// be there alone. Half floats have none and come as raw bytes.
func Contents(dtype string, c *oippb.InferTensorContents) ([]byte, error) {
	if c == nil {
		return nil, errors.New("data is missing: contents or raw_input_contents are wanted")
	}
	lists := []int{len(c.BoolContents), len(c.IntContents), len(c.Int64Contents), len(c.UintContents), len(c.Uint64Contents), len(c.Fp32Contents), len(c.Fp64Contents), len(c.BytesContents)}
	const bools, ints, int64s, uints, uint64s, fp32s, fp64s = 0, 1, 2, 3, 4, 5, 6
	want, ok := map[string]int{
		"BOOL": bools, "INT8": ints, "INT16": ints, "INT32": ints, "INT64": int64s, "UINT8": uints, "UINT16": uints, "UINT32": uints, "UINT64": uint64s, "FP32": fp32s, "FP64": fp64s,
	}[dtype]
	if !ok {
		return nil, fmt.Errorf("datatype %.20q has no contents: raw_input_contents are wanted", dtype)
	}
	for i, n := range lists {
		if i != want && n > 0 {
			return nil, fmt.Errorf("contents of another datatype than %s", dtype)
		}
	}
	var b []byte
	put := func(i int, v int64, u uint64) error {
		if r := integers[dtype]; v < r.lo || v >= 0 && u > r.hi {
			return fmt.Errorf("element %d does not fit %s", i, dtype)
		}
		b = appendBits(b, dtype, u)
		return nil
	}
	var err error
	each(&err, c.IntContents, func(i int, v int32) error { return put(i, int64(v), uint64(int64(v))) })
	each(&err, c.Int64Contents, func(i int, v int64) error { return put(i, v, uint64(v)) })
	each(&err, c.UintContents, func(i int, v uint32) error { return put(i, int64(v), uint64(v)) })
	each(&err, c.Uint64Contents, func(_ int, v uint64) error { b = appendBits(b, dtype, v); return nil })
	for _, v := range c.BoolContents {
		b = append(b, map[bool]byte{true: 1}[v])
	}
	for _, v := range c.Fp32Contents {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
	}
	for _, v := range c.Fp64Contents {
		b = binary.LittleEndian.AppendUint64(b, math.Float64bits(v))
	}
	return b, err
}

// each calls do for every element until one fails.
func each[T any](err *error, list []T, do func(int, T) error) {
	for i, v := range list {
		if *err != nil {
			return
		}
		*err = do(i, v)
	}
}
