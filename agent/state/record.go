package state

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"

	bolt "go.etcd.io/bbolt"
)

// A stored value is one byte of format, the CRC-32C of bucket, key and payload,
// and the payload as JSON: bbolt has no checksums of its own on data.
const (
	recordFormat = 1
	recordHeader = 5
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func sum(bucket, key, payload []byte) uint32 {
	c := crc32.Update(0, castagnoli, bucket)
	c = crc32.Update(c, castagnoli, []byte{0})
	c = crc32.Update(c, castagnoli, key)
	c = crc32.Update(c, castagnoli, []byte{0})
	return crc32.Update(c, castagnoli, payload)
}

func seal(bucket, key, payload []byte) []byte {
	b := make([]byte, recordHeader, recordHeader+len(payload))
	b[0] = recordFormat
	binary.LittleEndian.PutUint32(b[1:], sum(bucket, key, payload))
	return append(b, payload...)
}

// unseal returns the payload, which aliases value.
func unseal(bucket, key, value []byte) ([]byte, error) {
	if len(value) < recordHeader || value[0] != recordFormat {
		return nil, fmt.Errorf("record %s/%q: %w", bucket, key, ErrDamaged)
	}
	payload := value[recordHeader:]
	if binary.LittleEndian.Uint32(value[1:]) != sum(bucket, key, payload) {
		return nil, fmt.Errorf("record %s/%q: checksum: %w", bucket, key, ErrDamaged)
	}
	return payload, nil
}

// marker is the record without which a file is not ours, in a bucket of its own.
type marker struct {
	Schema     int    `json:"schema"`
	Generation uint64 `json:"generation"`
}

var (
	metaBucket = []byte("dunlin.meta")
	markerKey  = []byte("marker")
)

func putMarker(tx *bolt.Tx, m marker) error {
	b, err := tx.CreateBucketIfNotExists(metaBucket)
	if err != nil {
		return err
	}
	payload, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return b.Put(markerKey, seal(metaBucket, markerKey, payload))
}
