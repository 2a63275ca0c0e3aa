package httpapi

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
)

// Bytes that are passed by eight at a time are none that end a string, begin an escape
// or must not be there, wherever they stand and whatever stands beside them.
func TestPlainTextPassesOnlyWhatIsPlain(t *testing.T) {
	for _, beside := range []byte{' ', '!', '#', 'A', '[', ']', 0x7f} {
		for b := range 256 {
			for at := range 24 {
				text := bytes.Repeat([]byte{beside}, 24)
				text[at] = byte(b)
				n := plainText(text)
				require.Zero(t, n%8)
				if plain := b >= ' ' && b != '"' && b != '\\'; plain && b < 0x80 {
					require.Equal(t, 24, n, "%q at %d", b, at)
				} else if !plain {
					require.LessOrEqual(t, n, at, "%q at %d", b, at)
				}
			}
		}
	}
	require.Zero(t, plainText([]byte("1234567")))
	require.Equal(t, 8, plainText([]byte("123456789")))
}
