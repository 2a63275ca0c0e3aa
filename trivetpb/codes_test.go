package trivetpb

import (
	"net/http"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestEveryCodeHasItsRow(t *testing.T) {
	names := map[string]Code{}
	for n := range Code_name {
		c := Code(n)
		info, ok := codes[c]
		require.True(t, ok, "%v is not in the table", c)
		require.Regexp(t, regexp.MustCompile(`^[a-z_]+$`), info.Name)
		require.NotEmpty(t, info.Title)
		require.NotEmpty(t, http.StatusText(info.Status))
		if other, ok := names[info.Name]; ok {
			require.ElementsMatch(t, []Code{c, other}, []Code{Code_TOO_LARGE, Code_HEADERS_TOO_LARGE}, "one name, two codes")
			continue
		}
		names[info.Name] = c
	}
	require.Len(t, codes, len(Code_name))
	for name := range names {
		c, ok := CodeByName(name)
		require.True(t, ok)
		require.Equal(t, name, c.Info().Name)
	}
	_, ok := CodeByName("no such")
	require.False(t, ok)
	require.Equal(t, Code_INTERNAL.Info(), Code(1<<20).Info())
}

// Bytes that a /v1/batch client and a peer have sent stay readable.
func TestWireIsGolden(t *testing.T) {
	for _, c := range []struct {
		name string
		m    interface{ MarshalVT() ([]byte, error) }
		want string
	}{
		{"batch", &BatchRequest{Ops: []*BatchOp{{Op: &Op{Op: &Op_Put{Put: &PutOp{
			Key: []byte("k"), Value: []byte("v"), Prev: true, Precondition: &Precondition{Kind: Precondition_MOD_REVISION, ModRevision: 7}}}}}}},
			"\x0a\x12\x0a\x10\x0a\x0e\x0a\x01k\x12\x01v \x01*\x04\x08\x01\x10\x07"},
		{"result", &Result{Revision: 9, Result: &Result_Add{Add: &AddResult{Value: -2}}}, "\x08\x09:\x02\x08\x03"},
		{"problem", &Problem{Code: Code_PRECONDITION_FAILED, Detail: "d", ModRevision: 3}, "\x08\x11\x12\x01d \x03"},
		{"hello", &Hello{Protocol: 1, ClusterId: "c", From: "a", To: "b"}, "\x08\x01\x12\x01c\x1a\x01a\"\x01b"},
		{"forward", &PeerRequest{Id: 5, Request: &PeerRequest_Forward{Forward: &ForwardRequest{Commands: [][]byte{{1, 2}}}}},
			"\x08\x05\x12\x04\x0a\x02\x01\x02"},
		{"confirm", &PeerRequest{Id: 6, Request: &PeerRequest_Confirm{Confirm: &ConfirmRequest{Term: 4}}}, "\x08\x06\"\x02\x08\x04"},
	} {
		b, err := c.m.MarshalVT()
		require.NoError(t, err)
		require.Equal(t, []byte(c.want), b, c.name)
	}
}
