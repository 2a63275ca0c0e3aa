package load

import (
	"crypto/rand"
	"strconv"
)

const (
	// Prefix is what every key starts with.
	Prefix = "bench/key/"
	// KeyBytes is the length of every key.
	KeyBytes = 32
)

// AppendKey appends key i, which is at least 0, to b: Prefix and then digits, so
// that keys are in the order of their numbers.
func AppendKey(b []byte, i int) []byte {
	b = append(b, Prefix...)
	at := len(b)
	b = append(b, "0000000000000000000000"[:KeyBytes-len(Prefix)]...)
	var digits [20]byte
	d := strconv.AppendInt(digits[:0], int64(i), 10)
	copy(b[at+KeyBytes-len(Prefix)-len(d):], d)
	return b
}

// Key returns key i.
func Key(i int) string { return string(AppendKey(nil, i)) }

// Value returns n random bytes: nothing on the way can make less of them.
func Value(n int) []byte {
	v := make([]byte, n)
	rand.Read(v) // never fails
	return v
}
