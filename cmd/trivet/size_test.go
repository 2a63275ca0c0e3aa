package main

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestSize(t *testing.T) {
	for _, tc := range []struct {
		text  string
		bytes size
		again string // as it is printed; "" for as given
	}{
		{"0", 0, ""},
		{"1B", 1, ""},
		{"4096", 4096, "4KiB"},
		{"8GiB", 8 << 30, ""},
		{"256MiB", 256 << 20, ""},
		{"1024MiB", 1 << 30, "1GiB"},
		{"5kB", 5000, ""},
		{"2TB", 2e12, ""},
		{"8191PiB", 0, "refused"},
		{"8388607TiB", 8388607 << 40, ""},
		{"8388608TiB", 0, "refused"},
		{"9223372036854775807", 1<<63 - 1, "9223372036854775807B"},
		{"9223372036854775808", 0, "refused"},
		{"", 0, "refused"},
		{"B", 0, "refused"},
		{"-1", 0, "refused"},
		{"+1", 0, "refused"},
		{" 1", 0, "refused"},
		{"1 MiB", 0, "refused"},
		{"1.5GiB", 0, "refused"},
		{"1e3", 0, "refused"},
		{"0x10", 0, "refused"},
		{"1_000", 0, "refused"},
		{"8Gb", 0, "refused"},
		{"8gib", 0, "refused"},
		{"8G", 0, "refused"},
		{"1KB", 0, "refused"},
		{"1iB", 0, "refused"},
		{"1MiBB", 0, "refused"},
	} {
		got, err := parseSize(tc.text)
		if tc.again == "refused" {
			require.Error(t, err, tc.text)
			continue
		}
		require.NoError(t, err, tc.text)
		require.Equal(t, tc.bytes, got, tc.text)
		if tc.again == "" {
			tc.again = tc.text
		}
		require.Equal(t, tc.again, got.String())
		back, err := parseSize(got.String())
		require.NoError(t, err)
		require.Equal(t, got, back)
	}
}
