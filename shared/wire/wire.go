// Package wire is what device and server say to each other: topics, message
// types, one protocol number with its history, and the signed envelope. Each
// message is CBOR with integer keys and has one Go type. Decoding is strict and
// bounded: unknown keys, duplicate keys, over-long messages and trailing bytes
// are refused with ErrMalformed.
package wire

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/fxamacker/cbor/v2"
)

// Protocol is the number that hello and welcome negotiate.
//
// History:
//
//	1  2026-11-23  first protocol
const Protocol = 1

// MaxMessage is the largest message of either direction in bytes; the broker
// closes a connection that sends more.
const MaxMessage = 160 << 10

// ErrMalformed is wrapped by every decoding error.
var ErrMalformed = errors.New("malformed message")

// Code is the code of an error of this package, "" for any other.
func Code(err error) string {
	switch {
	case errors.Is(err, ErrMalformed):
		return "wire.malformed"
	case errors.Is(err, ErrSignature):
		return "wire.signature"
	}
	return ""
}

// Kind is the last part of a topic.
type Kind string

// Kinds that a device publishes.
const (
	KindHello    Kind = "hello"
	KindGet      Kind = "get"
	KindReport   Kind = "report"
	KindSample   Kind = "sample"
	KindEvent    Kind = "event"
	KindAnswer   Kind = "answer"
	KindCapture  Kind = "capture"
	KindPresence Kind = "presence"
)

// Kinds that the server publishes.
const (
	KindWelcome Kind = "welcome"
	KindMeta    Kind = "meta"
	KindBlock   Kind = "block"
	KindAck     Kind = "ack"
	KindAsk     Kind = "ask"
	KindBusy    Kind = "busy"
)

// UpKinds and DownKinds list every kind in a stable order.
var (
	UpKinds   = [...]Kind{KindHello, KindGet, KindReport, KindSample, KindEvent, KindAnswer, KindPresence, KindCapture}
	DownKinds = [...]Kind{KindWelcome, KindMeta, KindBlock, KindAck, KindAsk, KindBusy}
)

const topicRoot = "dunlin/v1/"

// UpTopic is where the device publishes messages of kind k.
func UpTopic(device string, k Kind) string { return topicRoot + device + "/up/" + string(k) }

// DownTopic is where the server publishes messages of kind k for the device.
func DownTopic(device string, k Kind) string { return topicRoot + device + "/down/" + string(k) }

// UpFilter and DownFilter match all topics of one device in one direction.
func UpFilter(device string) string { return topicRoot + device + "/up/#" }

// DownFilter is what a device subscribes to, and nothing else.
func DownFilter(device string) string { return topicRoot + device + "/down/#" }

// ParseTopic splits a topic of either direction.
func ParseTopic(topic string) (device string, up bool, k Kind, err error) {
	rest, ok := strings.CutPrefix(topic, topicRoot)
	parts := strings.Split(rest, "/")
	if !ok || len(parts) != 3 || !ValidDevice(parts[0]) {
		return "", false, "", fmt.Errorf("topic %q: %w", topic, ErrMalformed)
	}
	device, k = parts[0], Kind(parts[2])
	switch {
	case parts[1] == "up" && hasKind(UpKinds[:], k):
		return device, true, k, nil
	case parts[1] == "down" && hasKind(DownKinds[:], k):
		return device, false, k, nil
	}
	return "", false, "", fmt.Errorf("topic %q: %w", topic, ErrMalformed)
}

func hasKind(kinds []Kind, k Kind) bool {
	for _, x := range kinds {
		if x == k {
			return true
		}
	}
	return false
}

var deviceName = regexp.MustCompile(`^[a-z0-9-]{1,64}$`)

// ValidDevice tells whether id may be a device id: 1 to 64 of a-z, 0-9 and '-'.
// It is at once the certificate's CN and the MQTT client id.
func ValidDevice(id string) bool { return deviceName.MatchString(id) }

var (
	encMode = mustEnc()
	decMode = mustDec()
)

func mustEnc() cbor.EncMode {
	m, err := cbor.EncOptions{Sort: cbor.SortBytewiseLexical, IndefLength: cbor.IndefLengthForbidden, NaNConvert: cbor.NaNConvertReject, InfConvert: cbor.InfConvertReject}.EncMode()
	if err != nil {
		panic(err) // options are constants: a wrong one fails every test
	}
	return m
}

func mustDec() cbor.DecMode {
	m, err := cbor.DecOptions{
		DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden, TagsMd: cbor.TagsForbidden,
		MaxNestedLevels: 16, MaxArrayElements: 1 << 16, MaxMapPairs: 1 << 12,
		ExtraReturnErrors: cbor.ExtraDecErrorUnknownField, UTF8: cbor.UTF8RejectInvalid,
		NaN: cbor.NaNDecodeForbidden, Inf: cbor.InfDecodeForbidden,
	}.DecMode()
	if err != nil {
		panic(err)
	}
	return m
}

// Encode returns the canonical bytes of a message.
func Encode(msg any) ([]byte, error) {
	b, err := encMode.Marshal(msg)
	if err != nil {
		return nil, fmt.Errorf("encode %T: %w", msg, err)
	}
	return b, nil
}

// Decode reads exactly one message into out, a pointer to a message type. A
// message that has a Check method is checked.
func Decode(b []byte, out any) error { return decode(b, out, MaxMessage) }

func decode(b []byte, out any, limit int) error {
	if len(b) > limit {
		return fmt.Errorf("decode %T: %d bytes: %w", out, len(b), ErrMalformed)
	}
	if err := decMode.Unmarshal(b, out); err != nil {
		return fmt.Errorf("decode %T: %w: %v", out, ErrMalformed, err)
	}
	if c, ok := out.(interface{ Check() error }); ok {
		if err := c.Check(); err != nil {
			return fmt.Errorf("decode %T: %w: %v", out, ErrMalformed, err)
		}
	}
	return nil
}
