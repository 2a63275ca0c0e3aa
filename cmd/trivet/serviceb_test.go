package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestInstancesShareTheirState does what the README shows: a cluster of three
// processes and two instances of the example service, each a process. Whatever
// one instance takes the other sees; a leader that is killed, and an instance
// that is killed and replaced, change nothing of it.
func TestInstancesShareTheirState(t *testing.T) {
	dir, ports := t.TempDir(), freePorts(t)
	binary := filepath.Join(dir, "serviceb")
	out, err := exec.Command("go", "build", "-o", binary, "trivet/examples/serviceb").CombinedOutput()
	require.NoError(t, err, string(out))

	dev := startProcess(t, dir, os.Environ(), "dev", "--api-port", strconv.Itoa(ports), "--peer-port", strconv.Itoa(ports+10))
	t.Cleanup(dev.stop)
	require.NoError(t, dev.await(`Ctrl-C stops`))
	cluster := fmt.Sprintf("http://127.0.0.1:%d,http://127.0.0.1:%d,http://127.0.0.1:%d", ports, ports+1, ports+2)
	instance := func(i int) (*process, string) {
		addr := fmt.Sprintf("127.0.0.1:%d", ports+5+i)
		p := startProgram(t, binary, dir, os.Environ(), "--listen", addr, "--trivet", cluster)
		t.Cleanup(func() {
			p.signal(syscall.SIGKILL)
			p.ended()
		})
		require.NoError(t, p.await(addr))
		return p, "http://" + addr
	}
	call := func(method, url string) string {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
		require.NoError(t, err)
		resp, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.Less(t, resp.StatusCode, 300, "%s %s: %s", method, url, body)
		return strings.TrimSpace(string(body))
	}

	_, a := instance(0)
	second, b := instance(1)
	want := 0
	for i := range 10 {
		call(http.MethodPost, []string{a, b}[i%2]+"/carts/ann/items/apple?add=1")
		want++
		for _, at := range []string{a, b} {
			require.Equal(t, fmt.Sprintf(`{"items":{"apple":%d}}`, want), call(http.MethodGet, at+"/carts/ann"))
		}
	}

	killed := dev.leader()
	require.NoError(t, syscall.Kill(dev.nodePID(killed), syscall.SIGKILL))
	require.NoError(t, dev.await(`is the leader now$`))
	call(http.MethodPut, b+"/carts/ann/items/pear?quantity=3")
	require.Equal(t, `{"items":{"apple":10,"pear":3}}`, call(http.MethodGet, a+"/carts/ann"))

	second.signal(syscall.SIGKILL)
	_, err = second.ended()
	require.NoError(t, err)
	_, b = instance(2)
	require.Equal(t, `{"items":{"apple":10,"pear":3}}`, call(http.MethodGet, b+"/carts/ann"))
	http.DefaultClient.CloseIdleConnections()
}
