package raftnode

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"runtime/debug"
	"time"

	"go.etcd.io/bbolt"
)

// checkBoltFile reads a whole bolt file and checks its structure, before it is
// opened for good. bolt maps the file: where it was truncated, the first access
// beyond its end is a SIGBUS, which would end the process without a word about
// the file. A damaged page is a panic.
func checkBoltFile(path string) (err error) {
	if _, err := os.Stat(path); err != nil {
		return fmt.Errorf("%w: a file of this data folder is missing", err)
	}
	if err := checkBoltSize(path); err != nil {
		return fmt.Errorf("%s is damaged: %w", path, err)
	}
	// A fault in this goroutine becomes a panic, and is recovered; bolt's own
	// Check works in another one.
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%s is damaged: %v", path, r)
		}
	}()
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true, Timeout: time.Second})
	if err != nil {
		return fmt.Errorf("%s is damaged: %w", path, err)
	}
	defer db.Close()
	if err := db.View(touch); err != nil {
		return fmt.Errorf("%s is damaged: %w", path, err)
	}
	return nil
}

// touch reads every page that holds data.
func touch(tx *bbolt.Tx) error {
	return tx.ForEach(func(name []byte, b *bbolt.Bucket) error {
		if b == nil {
			return fmt.Errorf("bucket %q cannot be read", name)
		}
		return b.ForEach(func(_, v []byte) error {
			if len(v) > 0 {
				_, _ = v[0], v[len(v)-1]
			}
			return nil
		})
	})
}

// checkBoltSize compares the file's length with what bolt's newest valid meta
// page says is in use. The first two pages of a bolt file are meta pages, of
// which the one with the higher transaction id counts if its checksum holds
// (bbolt, internal/common/meta.go; the byte order is the machine's own).
func checkBoltSize(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	const (
		pageHeader  = 16
		metaLen     = 64
		magic       = 0xED0CDAED
		checksummed = metaLen - 8
	)
	order := binary.NativeEndian
	pageSize := int64(os.Getpagesize())
	var newest, pages uint64
	var size int64
	for _, at := range []int64{0, pageSize} {
		b := make([]byte, metaLen)
		if _, err := f.ReadAt(b, at+pageHeader); err != nil {
			continue
		}
		h := fnv.New64a()
		h.Write(b[:checksummed])
		txid := order.Uint64(b[48:])
		if order.Uint32(b) != magic || order.Uint64(b[checksummed:]) != h.Sum64() || (size != 0 && txid <= newest) {
			continue
		}
		newest, pages, size = txid, order.Uint64(b[40:]), int64(order.Uint32(b[8:]))
	}
	if size == 0 {
		return errors.New("neither of its meta pages is valid")
	}
	if need := int64(pages) * size; info.Size() < need {
		return fmt.Errorf("it is %d bytes long, and %d are in use", info.Size(), need)
	}
	return nil
}
