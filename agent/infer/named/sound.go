package named

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/dunlin-edge/dunlin/shared/bundle"
)

// Sound turns one window of a WAV file (PCM, 16 bits, one channel, the contract's rate)
// into a tensor: samples over 32768 as real values, or as they are in an INT16 tensor
// without quantization. The window begins at sample from; without one (-1) the file
// must be as long as it.
func Sound(t *bundle.Tensor, wav []byte, from int) ([]byte, error) {
	if t.Meaning == nil || t.Meaning.Audio == nil {
		return nil, fmt.Errorf("the contract does not say what window of sound it is: %s %v is wanted", t.DType, t.Shape)
	}
	a := t.Meaning.Audio
	rate, data, err := parseWAV(wav)
	switch n := len(data) / 2; {
	case err != nil:
		return nil, err
	case rate != a.Rate:
		return nil, fmt.Errorf("a sound of %d samples a second, %d are wanted", rate, a.Rate)
	case from < 0 && n != a.Window:
		return nil, fmt.Errorf("a sound of %d samples, %d are wanted; the parameter offset says where a window of a longer one begins", n, a.Window)
	case n-max(from, 0) < a.Window:
		return nil, fmt.Errorf("a sound of %d samples, from sample %d on %d are wanted", n, from, a.Window)
	}
	data = data[2*max(from, 0):][:2*a.Window]
	return soundTensor(t, data)
}

func soundTensor(t *bundle.Tensor, data []byte) ([]byte, error) {
	if t.DType == "INT16" && t.Quant == nil {
		return bytes.Clone(data), nil
	}
	limits := map[string][2]float64{"INT8": {-128, 127}, "INT16": {-32768, 32767}}[t.DType]
	if t.DType != "FP32" && (limits == [2]float64{} || t.Quant == nil || len(t.Quant.Scale) != 1) {
		return nil, fmt.Errorf("a sound does not become a tensor of %s", t.DType)
	}
	var out []byte
	for ; len(data) > 0; data = data[2:] {
		x := float64(int16(binary.LittleEndian.Uint16(data))) / 32768
		if t.DType == "FP32" {
			out = binary.LittleEndian.AppendUint32(out, math.Float32bits(float32(x)))
			continue
		}
		x = min(max(math.Round(x/float64(t.Quant.Scale[0]))+float64(t.Quant.Zero[0]), limits[0]), limits[1])
		if t.DType == "INT8" {
			out = append(out, byte(int8(x)))
		} else {
			out = binary.LittleEndian.AppendUint16(out, uint16(int16(x)))
		}
	}
	return out, nil
}

// IsWAV tells whether bytes begin as a WAV file does.
func IsWAV(b []byte) bool {
	return len(b) >= 12 && string(b[:4]) == "RIFF" && string(b[8:12]) == "WAVE"
}

// parseWAV finds the samples of a WAV file.
func parseWAV(b []byte) (rate int, data []byte, err error) {
	if !IsWAV(b) {
		return 0, nil, errors.New("a file that is no WAV")
	}
	for b = b[12:]; len(b) >= 8; {
		name, size := string(b[:4]), int64(binary.LittleEndian.Uint32(b[4:]))
		b = b[8:]
		if name == "data" && rate > 0 {
			return rate, b[:min(size, int64(len(b)))&^1], nil
		}
		if size > int64(len(b)) {
			break
		}
		if name == "fmt " {
			if size < 16 {
				return 0, nil, errors.New("a WAV whose format is cut short")
			}
			kind, channels, bits := binary.LittleEndian.Uint16(b), binary.LittleEndian.Uint16(b[2:]), binary.LittleEndian.Uint16(b[14:])
			rate = int(binary.LittleEndian.Uint32(b[4:]))
			if kind != 1 || channels != 1 || bits != 16 || rate < 1 {
				return 0, nil, fmt.Errorf("a WAV of format %d, %d channels, %d bits; PCM (1) of one channel and 16 bits is wanted", kind, channels, bits)
			}
		}
		b = b[min(size+size&1, int64(len(b))):]
	}
	return 0, nil, errors.New("a WAV without samples")
}
