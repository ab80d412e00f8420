package bundle

import (
	"bytes"
	"encoding/json"
)

// MaxContract is the greatest size of an encoded contract in bytes.
const MaxContract = 1 << 20

// DecodeContract reads a contract strictly and validates it.
func DecodeContract(b []byte) (*Contract, error) {
	if len(b) > MaxContract {
		return nil, refuse(CodeContractTooLarge, "contract of %d bytes, at most %d are read", len(b), MaxContract)
	}
	var head struct {
		Number int `json:"contract"`
	}
	if err := json.Unmarshal(b, &head); err == nil && head.Number > ContractNumber {
		return nil, refuse(CodeContractNumber, "contract of format %d; this version reads up to %d", head.Number, ContractNumber)
	}
	c := &Contract{}
	if err := decodeStrict(b, c, true); err != nil {
		return nil, refuse(CodeContractMalformed, "contract: %v", err)
	}
	if err := c.Validate(); err != nil {
		return nil, err
	}
	return c, nil
}

// Encode validates the contract and returns its stored form; equal contracts
// have equal bytes.
func (c *Contract) Encode() ([]byte, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(c); err != nil {
		return nil, refuse(CodeContractInvalid, "contract: %v", err)
	}
	if b.Len() > MaxContract {
		return nil, refuse(CodeContractTooLarge, "contract of %d bytes, at most %d are allowed", b.Len(), MaxContract)
	}
	return b.Bytes(), nil
}
