package stream

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
)

// Tensor is an input as a model's metadata tell it.
type Tensor struct {
	Name     string `json:"name"`
	Datatype string `json:"datatype"`
	Shape    []int  `json:"shape"`
}

// Request makes a request of the Open Inference Protocol of a message: an object is
// one already, an array is the data of the only input.
func Request(message []byte, inputs []Tensor) ([]byte, error) {
	message = bytes.TrimSpace(message)
	if len(message) > 0 && message[0] == '{' {
		return message, nil
	}
	if len(message) == 0 || message[0] != '[' {
		return nil, errors.New("a message is a request of the Open Inference Protocol, or an array of numbers")
	}
	if !json.Valid(message) {
		return nil, errors.New("the array is no JSON")
	}
	if len(inputs) != 1 {
		return nil, fmt.Errorf("the model has %d inputs: an array alone is for one", len(inputs))
	}
	t := inputs[0]
	shape := make([]int, len(t.Shape))
	for i, d := range t.Shape {
		shape[i] = max(d, 1) // what may be any size is one case
	}
	type tensor struct {
		Tensor
		Data json.RawMessage `json:"data"`
	}
	return json.Marshal(map[string][]tensor{"inputs": {{Tensor{t.Name, t.Datatype, shape}, message}}})
}
