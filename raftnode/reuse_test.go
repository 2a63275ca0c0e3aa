package raftnode

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"trivet/trivetpb"
)

// Commands are encoded into memory that is used again once all have their results,
// and not before: each attempt reads them, the last as the first. (Buffers are
// overwritten as they come back: TestMain.)
func TestCommandsAreReadByEachAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 100
		commands := make([]*trivetpb.Command, n)
		var want [][]byte
		for i, encoded := range commandsOf(n, 200) {
			commands[i] = &trivetpb.Command{}
			require.NoError(t, commands[i].UnmarshalVT(encoded))
			commands[i].Session, commands[i].Seq = 5, uint64(i+1)
			encoded, err := commands[i].MarshalVT()
			require.NoError(t, err)
			want = append(want, encoded)
		}
		d := newDesk()
		node := &Node{proposer: d.proposer}
		propose := func(ctx context.Context) <-chan []*trivetpb.Result {
			done := make(chan []*trivetpb.Result, 1)
			go func() {
				results, err := node.Propose(ctx, commands)
				require.NoError(t, err)
				done <- results
			}()
			synctest.Wait()
			d.dispatchAll()
			return done
		}
		requireEntry := func(i int) {
			t.Helper()
			require.Len(t, d.entries, i+1)
			for c := range want {
				got, err := d.command(t, i, c).MarshalVT()
				require.NoError(t, err)
				require.Equal(t, want[c], got)
			}
		}

		d.leaderIs = "n2"
		done := propose(t.Context())
		require.Equal(t, want, d.sent[0].commands)
		d.forwarded(d.sent[0], nil, nil, errPeerLost)
		time.Sleep(2 * retryPause) // virtual
		d.dispatchAll()
		require.Equal(t, want, d.sent[1].commands)
		d.forwarded(d.sent[1], nil, nil, errPeerLost)
		d.lead(3)
		d.dispatchAll()
		requireEntry(0)
		l := d.entries[0]
		l.Index = 10
		d.storing([]*raft.Log{&l})
		d.stepDown(0)
		d.lead(4)
		d.dispatchAll()
		requireEntry(1)
		d.commit(t, 1, 11, n)
		require.Len(t, <-done, n)

		// What left is nobody's but raft's and the peer's: the next is encoded where
		// those commands were.
		done = propose(t.Context())
		requireEntry(2)
		require.Equal(t, want, d.sent[0].commands)
		d.commit(t, 2, 12, n)
		require.Len(t, <-done, n)
		requireEntry(2)

		// A caller that gives up leaves what it proposed to its fate.
		over, cancel := context.WithCancel(t.Context())
		done = propose(over)
		cancel()
		require.True(t, (<-done)[0].Problem.Unknown)
		requireEntry(3)
		l = d.entries[3]
		l.Index = 13
		d.storing([]*raft.Log{&l})
		d.stepDown(0)
		require.True(t, d.idle())
	})
}
