package httpapi

import (
	"encoding/base64"
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
)

// Whatever byte stands wherever in a text of whatever length, what is written reads back
// as it was: eight bytes are looked at together, and what follows them one by one.
func TestTextOfEveryByteAndLength(t *testing.T) {
	for length := range 20 {
		for at := range length {
			for ch := range 256 {
				s := []byte("........................"[:length])
				s[at] = byte(ch)
				require.Equal(t, base64.StdEncoding.EncodeToString(s), string(appendBase64(nil, string(s))))
				if ch >= 0x80 {
					s = []byte(string(s[:at]) + string(rune(ch)) + string(s[at+1:]))
				}
				b := appendString(nil, s)
				var back string
				require.NoError(t, json.Unmarshal(b, &back), "%q", b)
				require.Equal(t, string(s), back)
			}
		}
	}
}
