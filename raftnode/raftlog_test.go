package raftnode

import (
	"bytes"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"
)

func TestRaftLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		var quiet atomic.Bool
		l := newRaftLog(slog.New(slog.NewTextHandler(&out, nil)), &quiet).With("node", "n1")
		lines := func() int { return strings.Count(out.String(), "\n") }

		l.Info("entering follower state")
		require.Zero(t, lines(), "raft's information is for debugging")
		l.Warn("heartbeat timeout reached", "last-leader", hclog.Fmt("%s", "n2"))
		require.Contains(t, out.String(), "level=INFO msg=\"heartbeat timeout reached\" part=raft node=n1 last-leader=n2")
		out.Reset()

		l.Warn("failed to contact", "server-id", "n3", "time", time.Second)
		require.Contains(t, out.String(), "server-id=n3 raft_time=1s", "a line has one time")
		out.Reset()

		for range 100 {
			l.Error("failed to heartbeat to", "peer", "n2", "error", "refused")
			l.Error("failed to heartbeat to", "peer", "n3", "error", "refused")
		}
		require.Equal(t, 2, lines(), "once for each peer")
		time.Sleep(warnEvery) // virtual
		l.Error("failed to heartbeat to", "peer", "n2", "error", "refused")
		require.Equal(t, 3, lines())
		out.Reset()
		server := raft.Server{ID: "n2", Address: serverAddress("host:7171", "0a1b")}
		l.Error("failed to send snapshot to", "peer", server, "error", "refused")
		l.Error("failed to reach", "peer", server.Address, "servers", hclog.Fmt("%+v", []raft.Server{server}))
		require.Contains(t, out.String(), `peer="n2 at host:7171 (Voter)"`)
		require.Contains(t, out.String(), "peer=host:7171")
		require.NotContains(t, out.String(), "0a1b", "a folder is of no use to a reader")
		out.Reset()
		quiet.Store(true)
		l.Error("failed to accept connection")
		require.Zero(t, lines(), "a stopping node")
		require.False(t, l.IsDebug())
		require.True(t, l.Named("a").Named("b").Name() == "a.b")
	})
}
