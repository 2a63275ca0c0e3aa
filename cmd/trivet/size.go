package main

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// size is a flag's value in bytes: "8GiB", "500kB", "4096".
type size int64

// sizeUnits from the largest: String takes the first that divides. Decimal and
// binary units are told apart by their names, as the standard has it.
var sizeUnits = []struct {
	name  string
	bytes int64
}{
	{"TiB", 1 << 40}, {"TB", 1e12},
	{"GiB", 1 << 30}, {"GB", 1e9},
	{"MiB", 1 << 20}, {"MB", 1e6},
	{"KiB", 1 << 10}, {"kB", 1e3},
	{"B", 1}, {"", 1},
}

var errSize = errors.New(`need a whole number of bytes, with B, kB, MB, GB, TB, KiB, MiB, GiB or TiB behind it or nothing, such as 256MiB`)

// parseSize parses strictly: a size that is nearly right is more likely a
// mistake than a size.
func parseSize(text string) (size, error) {
	digits := strings.TrimRight(text, "BTGMKkib")
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 0 || digits[0] == '+' {
		if errors.Is(err, strconv.ErrRange) {
			return 0, fmt.Errorf("%s is too large", text)
		}
		return 0, errSize
	}
	for _, u := range sizeUnits {
		if text[len(digits):] != u.name {
			continue
		}
		if n > math.MaxInt64/u.bytes {
			return 0, fmt.Errorf("%s is too large", text)
		}
		return size(n * u.bytes), nil
	}
	return 0, errSize
}

// String is the size in the largest unit that it is a multiple of.
func (s size) String() string {
	for _, u := range sizeUnits {
		if s != 0 && int64(s)%u.bytes == 0 {
			return strconv.FormatInt(int64(s)/u.bytes, 10) + u.name
		}
	}
	return "0"
}

// Set is for flags.
func (s *size) Set(text string) (err error) {
	*s, err = parseSize(text)
	return err
}

// Type is what help calls the value.
func (s *size) Type() string { return "size" }
