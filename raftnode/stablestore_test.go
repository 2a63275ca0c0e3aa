package raftnode

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

func TestStableKeepsTermAndVote(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newSimDisk()
		s, err := newGuardedStable(d, "stable", func(error) {})
		require.NoError(t, err)
		_, err = s.Get([]byte("LastVoteCand"))
		require.EqualError(t, err, "not found", "the text that raft compares with")
		_, err = s.GetUint64([]byte("LastVoteTerm"))
		require.EqualError(t, err, "not found")
		require.NoError(t, s.SetUint64(keyTerm, 7))
		require.NoError(t, s.SetUint64([]byte("LastVoteTerm"), 7)) // as raft does
		_, err = newGuardedStable(d, "stable", func(error) {})
		require.NoError(t, err)
		_, err = s.GetUint64([]byte("LastVoteTerm"))
		require.EqualError(t, err, "not found", "a crash here is a crash before the vote")
		require.NoError(t, s.Set([]byte("LastVoteCand"), []byte("n2")))

		s, err = newGuardedStable(d, "stable", func(error) {})
		require.NoError(t, err)
		require.EqualValues(t, 7, s.term)
		vote, err := s.Get([]byte("LastVoteCand"))
		require.NoError(t, err)
		require.Equal(t, "n2", string(vote))
		term, err := s.GetUint64([]byte("LastVoteTerm"))
		require.NoError(t, err)
		require.EqualValues(t, 7, term)
		require.Error(t, s.Set([]byte("LastVoteCand"), []byte("n3")), "in no term")
	})
}

// A vote that an earlier version has kept holds, until there is another.
func TestStableReadsTheVoteOfAnEarlierVersion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := newGuardedStable(newSimDisk(), "stable", func(error) {})
		require.NoError(t, err)
		// As those did: each by a write of its own.
		b := binary.BigEndian.AppendUint64(nil, 7)
		require.NoError(t, s.inner.Set(keyVoteTerm, append(binary.BigEndian.AppendUint32(nil, crc32.Checksum(b, castagnoli)), b...)))
		b = []byte("n2")
		require.NoError(t, s.inner.Set(keyVoteCand, append(binary.BigEndian.AppendUint32(nil, crc32.Checksum(b, castagnoli)), b...)))
		vote := func() (uint64, string) {
			term, err := s.GetUint64(keyVoteTerm)
			require.NoError(t, err)
			cand, err := s.Get(keyVoteCand)
			require.NoError(t, err)
			return term, string(cand)
		}
		term, cand := vote()
		require.EqualValues(t, 7, term)
		require.Equal(t, "n2", cand)
		require.NoError(t, s.SetUint64(keyVoteTerm, 9))
		require.NoError(t, s.Set(keyVoteCand, []byte("n3")))
		term, cand = vote()
		require.EqualValues(t, 9, term)
		require.Equal(t, "n3", cand)
	})
}

func TestStableBelongsToOneMember(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := newGuardedStable(newSimDisk(), "stable.db", func(error) {})
		require.NoError(t, err)
		require.ErrorContains(t, s.claim("n1", false), "does not say whose it is")
		require.NoError(t, s.claim("n1", true))
		require.NoError(t, s.claim("n1", true), "a folder that is made again")
		require.NoError(t, s.claim("n1", false))
		require.ErrorContains(t, s.claim("n2", false), "stable.db belongs to member n1, not to n2")
	})
}

func TestStableNamesAFlippedBit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newSimDisk()
		s, err := newGuardedStable(d, "stable.db", func(error) {})
		require.NoError(t, err)
		require.NoError(t, s.SetUint64(keyTerm, 7))
		d.kv["CurrentTerm"][11] ^= 4
		_, err = newGuardedStable(d, "stable.db", func(error) {})
		require.ErrorContains(t, err, "stable.db: the value of CurrentTerm does not match its checksum")
	})
}

func TestStableFailsTheNodeWhereAWriteFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newSimDisk()
		var failed error
		s, err := newGuardedStable(d, "stable.db", func(err error) { failed = err })
		require.NoError(t, err)
		s.start()
		d.failing = errors.New("no space left on device")
		ended, returned := make(chan struct{}), false
		go func() { // in place of raft's goroutine
			defer close(ended)
			s.SetUint64([]byte("LastVoteTerm"), 7)
			s.Set([]byte("LastVoteCand"), []byte("n2"))
			returned = true
		}()
		<-ended
		require.False(t, returned, "raft must not go on without its vote on disk")
		require.ErrorContains(t, failed, "stable.db: writing LastVoteTerm: no space left on device")
	})
}

// The gate between heartbeats beside raft's main goroutine and changes of the
// term by it.
func TestFastPathAndTermExcludeEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := newGuardedStable(newSimDisk(), "stable", func(error) {})
		require.NoError(t, err)
		require.NoError(t, s.SetUint64(keyTerm, 3))
		require.False(t, s.fastPath(2, func() { t.Error("an old term") }))
		require.False(t, s.fastPath(4, func() { t.Error("a new term") }))

		changed := make(chan struct{})
		require.True(t, s.fastPath(3, func() {
			go func() { // the main goroutine stands for election
				s.SetUint64(keyTerm, 4)
				close(changed)
			}()
			// The heartbeat meets a candidate, and makes it a follower of the
			// same term: no change, and no wait.
			require.NoError(t, s.SetUint64(keyTerm, 3))
			select {
			case <-changed:
				t.Error("the term changed under a heartbeat")
			default:
			}
		}))
		<-changed
		require.False(t, s.fastPath(3, func() { t.Error("the term before") }))
		require.True(t, s.fastPath(4, func() {}))
		require.Error(t, s.SetUint64(keyTerm, 3), "terms never go back")
	})
}
