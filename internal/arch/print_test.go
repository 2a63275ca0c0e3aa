package arch

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// What runs in a server says what it has to say in its log (log/slog): a service
// may have it inside, and its standard streams are the service's.
func TestServersDoNotPrint(t *testing.T) {
	banned := map[string]func(name string) bool{
		"fmt": func(name string) bool { return strings.HasPrefix(name, "Print") },
		"log": func(name string) bool { return name != "Logger" },
		"os":  func(name string) bool { return name == "Stdout" || name == "Stderr" || name == "Exit" },
	}
	files := 0
	for _, dir := range []string{"store", "raftnode", "httpapi", "trivetpb"} {
		paths, err := filepath.Glob(filepath.Join("..", "..", dir, "*.go"))
		require.NoError(t, err)
		for _, path := range paths {
			if strings.HasSuffix(path, "_test.go") {
				continue
			}
			files++
			fset := token.NewFileSet()
			f, err := parser.ParseFile(fset, path, nil, 0)
			require.NoError(t, err)
			ast.Inspect(f, func(n ast.Node) bool {
				s, ok := n.(*ast.SelectorExpr)
				if !ok {
					return true
				}
				// A variable of that name (raftnode has a log) has an Obj.
				if x, ok := s.X.(*ast.Ident); ok && x.Obj == nil && banned[x.Name] != nil && banned[x.Name](s.Sel.Name) {
					t.Errorf("%s: %s.%s", fset.Position(s.Pos()), x.Name, s.Sel.Name)
				}
				return true
			})
		}
	}
	require.Greater(t, files, 80)
}
