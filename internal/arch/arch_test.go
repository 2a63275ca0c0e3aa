package arch

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// may lists, for each package of the module, the packages of the module that it
// may import. Imports run one way: cmd → httpapi → raftnode → store → trivetpb,
// and client → trivetpb.
var may = map[string][]string{
	"trivet/trivetpb":           {},
	"trivet/internal/mutant":    {},
	"trivet/internal/arch":      {},
	"trivet/internal/histogram": {},
	"trivet/internal/spare":     {},
	"trivet/store":              {"trivet/trivetpb", "trivet/internal/mutant"},
	"trivet/raftnode":           {"trivet/store", "trivet/trivetpb", "trivet/internal/mutant", "trivet/internal/spare"},
	"trivet/httpapi":            {"trivet/raftnode", "trivet/store", "trivet/trivetpb", "trivet/internal/spare"},
	"trivet/client":             {"trivet/trivetpb"},
	"trivet/cmd/trivet":         {"trivet/httpapi", "trivet/raftnode", "trivet/store", "trivet/client", "trivet/trivetpb", "trivet/internal/histogram"},
	"trivet/examples/serviceb":  {"trivet/client"},
	// It sees the cluster as a user's service does: the API, the client, and of
	// the schema the Hello by which members' connections are told apart.
	"trivet/jepsen-lite": {"trivet/jepsen-lite/api", "trivet/jepsen-lite/check", "trivet/jepsen-lite/cluster", "trivet/jepsen-lite/history",
		"trivet/jepsen-lite/monitor", "trivet/jepsen-lite/nemesis", "trivet/jepsen-lite/report", "trivet/jepsen-lite/workload"},
	"trivet/jepsen-lite/history":  {},
	"trivet/jepsen-lite/api":      {"trivet/jepsen-lite/history"},
	"trivet/jepsen-lite/check":    {"trivet/jepsen-lite/history"},
	"trivet/jepsen-lite/nemesis":  {"trivet/jepsen-lite/api", "trivet/jepsen-lite/history"},
	"trivet/jepsen-lite/cluster":  {"trivet/jepsen-lite/api", "trivet/jepsen-lite/disk", "trivet/jepsen-lite/nemesis", "trivet/jepsen-lite/network", "trivet/trivetpb"},
	"trivet/jepsen-lite/disk":     {},
	"trivet/jepsen-lite/network":  {"trivet/jepsen-lite/nemesis"},
	"trivet/jepsen-lite/monitor":  {"trivet/jepsen-lite/api", "trivet/jepsen-lite/check", "trivet/jepsen-lite/history"},
	"trivet/jepsen-lite/report":   {"trivet/jepsen-lite/check", "trivet/jepsen-lite/history", "trivet/jepsen-lite/nemesis"},
	"trivet/jepsen-lite/workload": {"trivet/jepsen-lite/api", "trivet/jepsen-lite/check", "trivet/jepsen-lite/history", "trivet/client"},
	// Of tests alone, those of services too.
	"trivet/trivettest": {"trivet/httpapi", "trivet/raftnode", "trivet/client"},
}

// never lists what a package may not import, however good the reason.
var never = map[string][]string{
	// Pure: no network, no raft, no clock, no randomness, no environment.
	"trivet/store": {"net", "net/http", "os", "time", "math/rand", "math/rand/v2", "crypto/rand", "github.com/hashicorp/raft"},
	// A service that uses the client gets nothing of the server.
	"trivet/client": {"github.com/hashicorp/raft", "github.com/gorilla/mux", "go.etcd.io/bbolt"},
}

func TestImportsRunOneWay(t *testing.T) {
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports", "trivet/...").Output()
	require.NoError(t, err)
	seen := 0
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p struct {
			ImportPath string
			Imports    []string
		}
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else {
			require.NoError(t, err)
		}
		seen++
		allowed, known := may[p.ImportPath]
		if !known {
			t.Errorf("package %s is not in the rule: say what it may import", p.ImportPath)
		}
		for _, imported := range p.Imports {
			if strings.HasPrefix(imported, "trivet/") && !contains(allowed, imported) {
				t.Errorf("%s imports %s", p.ImportPath, imported)
			}
			if contains(never[p.ImportPath], imported) {
				t.Errorf("%s imports %s", p.ImportPath, imported)
			}
		}
	}
	require.GreaterOrEqual(t, seen, len(may))
}

func contains(list []string, s string) bool {
	for _, l := range list {
		if l == s {
			return true
		}
	}
	return false
}
