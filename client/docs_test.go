package client_test

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The recipes of docs/client.md are those that run.
func TestRecipesAreCompiled(t *testing.T) {
	doc, err := os.ReadFile("../docs/client.md")
	require.NoError(t, err)
	source, err := os.ReadFile("example_recipes_test.go")
	require.NoError(t, err)
	found := 0
	for i, block := range strings.Split(string(doc), "```go\n") {
		code, _, _ := strings.Cut(block, "```")
		if i == 0 || !strings.HasPrefix(code, "func ") || strings.HasPrefix(code, "func Test") {
			continue
		}
		found++
		name, _, _ := strings.Cut(code, "{\n")
		require.Contains(t, string(source), code, name)
	}
	require.Equal(t, 6, found)
}
