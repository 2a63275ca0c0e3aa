package raftnode

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"trivet/trivetpb"
)

// alone is the configuration of a cluster of one on a real disk.
func alone(t *testing.T, dir string) Config {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	return Config{
		ID: "n1", DataDir: dir, PeerListener: ln, AdvertisePeer: "127.0.0.1:7171",
		InitialCluster: []Peer{{"n1", "127.0.0.1:7171"}}, Logger: testLog(t),
		// Alone, it waits for nobody but its own election timeout.
		Timing: Timing{Heartbeat: 20 * time.Millisecond, Election: 20 * time.Millisecond, Lease: 10 * time.Millisecond, RPC: time.Second},
	}
}

func openAlone(t *testing.T, dir string, change func(*Config)) (*Node, error) {
	t.Helper()
	c := alone(t, dir)
	if change != nil {
		change(&c)
	}
	return Open(c)
}

// written makes a data folder with some writes in it and returns it closed.
func written(t *testing.T, writes int, change func(*Config)) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "data")
	n, err := openAlone(t, dir, change)
	require.NoError(t, err)
	write(t, n, writes)
	closeNode(t, n)
	return dir
}

// snapshotted makes a data folder with two snapshots, and hardly any log before
// the newer one.
func snapshotted(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "data")
	n, err := openAlone(t, dir, func(c *Config) { c.SnapshotBytes = 4 })
	require.NoError(t, err)
	for range 2 {
		write(t, n, 20)
		require.NoError(t, n.snapshot())
	}
	write(t, n, 20)
	n.snapshots.mu.Lock()
	n.snapshots.limit = 1 << 30 // its stop takes none
	n.snapshots.mu.Unlock()
	closeNode(t, n)
	return dir
}

func write(t *testing.T, n *Node, writes int) {
	t.Helper()
	ctx, cancel := within(30 * time.Second)
	defer cancel()
	for i := range writes {
		rs, err := n.Propose(ctx, []*trivetpb.Command{put("key", strings.Repeat("x", 100+i))})
		require.NoError(t, err)
		require.Nil(t, rs[0].Problem)
	}
}

func closeNode(t *testing.T, n *Node) {
	t.Helper()
	ctx, cancel := within(30 * time.Second)
	defer cancel()
	require.NoError(t, n.Close(ctx))
	<-n.Done()
}

// flip changes bytes of a file in place.
func flip(t *testing.T, path string, at int64, with ...byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	require.NoError(t, err)
	b := make([]byte, len(with))
	_, err = f.ReadAt(b, at)
	require.NoError(t, err)
	for i := range b {
		b[i] ^= with[i]
	}
	_, err = f.WriteAt(b, at)
	require.NoError(t, err)
	require.NoError(t, f.Close())
}

func tailSegment(t *testing.T, dir string) string {
	t.Helper()
	path, _, err := newestSegment(filepath.Join(dir, "raft", "wal"))
	require.NoError(t, err)
	return path
}

func TestOpenGoesOnWithWhatWasWritten(t *testing.T) {
	for _, kind := range []string{LogStoreWAL, LogStoreBoltDB} {
		t.Run(kind, func(t *testing.T) {
			use := func(c *Config) { c.LogStore = kind }
			dir := written(t, 20, use)
			info, err := os.Stat(dir)
			require.NoError(t, err)
			require.EqualValues(t, 0o700, info.Mode().Perm())
			n, err := openAlone(t, dir, func(c *Config) {
				use(c)
				c.InitialCluster = nil // known from here on
			})
			require.NoError(t, err)
			defer closeNode(t, n)
			ctx, cancel := within(10 * time.Second)
			defer cancel()
			_, err = n.AwaitRead(ctx, ReadOptions{})
			require.NoError(t, err)
			item, ok, _ := n.Store().Get([]byte("key"))
			require.True(t, ok)
			require.Len(t, item.Value, 119)
		})
	}
}

func TestOpenNamesWhatIsWrong(t *testing.T) {
	ready := func(t *testing.T) string { return written(t, 1, nil) }
	empty := func(t *testing.T) string { return filepath.Join(t.TempDir(), "data") }
	for _, c := range []struct {
		name   string
		dir    func(*testing.T) string
		change func(*Config)
		err    string
	}{
		{"no id", empty, func(c *Config) { c.ID = "" }, `"" is no member id`},
		{"an id that is none", empty, func(c *Config) { c.ID = "n 1" }, `"n 1" is no member id`},
		{"no cluster", empty, func(c *Config) { c.InitialCluster = nil }, "knows no cluster yet: give the initial cluster"},
		{"a cluster without itself", empty, func(c *Config) { c.InitialCluster[0].ID = "n2" }, "this member, n1, is not in the list"},
		{"a cluster with itself elsewhere", empty, func(c *Config) { c.InitialCluster[0].Addr = "127.0.0.1:9" }, "listed at 127.0.0.1:9, but goes by 127.0.0.1:7171"},
		{"a member twice", empty, func(c *Config) { c.InitialCluster = append(c.InitialCluster, Peer{"n1", "127.0.0.1:2"}) }, "member n1 is listed twice"},
		{"an address twice", empty, func(c *Config) { c.InitialCluster = append(c.InitialCluster, Peer{"n2", "127.0.0.1:7171"}) }, "127.0.0.1:7171 is listed twice"},
		{"an address that is none", empty, func(c *Config) { c.InitialCluster = append(c.InitialCluster, Peer{"n2", "host"}) }, `"host" of member n2 is not HOST:PORT`},
		{"a port that is none", empty, func(c *Config) { c.InitialCluster = append(c.InitialCluster, Peer{"n2", "host:65536"}) }, `"host:65536" of member n2 is not HOST:PORT`},
		{"an unknown log store", empty, func(c *Config) { c.LogStore = "mem" }, `log store "mem"`},
		{"a timing without sense", empty, func(c *Config) { c.Timing = Timing{Heartbeat: time.Second} }, "timing"},
		{"the folder of another member", ready, func(c *Config) { c.ID = "n2" }, "belongs to member n1"},
		{"the folder of another log store", ready, func(c *Config) { c.LogStore = LogStoreBoltDB }, `has a log of kind "wal", not "boltdb"`},
		{"a folder of something else", func(t *testing.T) string {
			dir := t.TempDir()
			require.NoError(t, os.WriteFile(filepath.Join(dir, "thesis.tex"), []byte("x"), 0o600))
			return dir
		}, nil, "holds thesis.tex but no member.json"},
		{"a folder that is a file", func(t *testing.T) string {
			path := filepath.Join(t.TempDir(), "file")
			require.NoError(t, os.WriteFile(path, nil, 0o600))
			return path
		}, nil, "not a directory"},
		{"a folder of a later version", func(t *testing.T) string {
			dir := ready(t)
			require.NoError(t, os.WriteFile(filepath.Join(dir, "member.json"), []byte(`{"format":2}`), 0o600))
			return dir
		}, nil, "has format 2; this version knows 1"},
		{"a member.json cut short", func(t *testing.T) string {
			dir := ready(t)
			require.NoError(t, os.Truncate(filepath.Join(dir, "member.json"), 20))
			return dir
		}, nil, "member.json"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := c.dir(t)
			_, err := openAlone(t, dir, c.change)
			require.ErrorContains(t, err, c.err)
			require.NotContains(t, err.Error(), "\n")
		})
	}
}

func TestOpenRefusesAFolderInUse(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	n, err := openAlone(t, dir, nil)
	require.NoError(t, err)
	defer closeNode(t, n)
	_, err = openAlone(t, dir, nil)
	require.ErrorContains(t, err, "is in use by another process")
}

func TestOpenRefusesAPortInUse(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	dir := filepath.Join(t.TempDir(), "data")
	_, err = openAlone(t, dir, func(c *Config) {
		c.PeerListener.Close()
		c.PeerListener, c.PeerAddr = nil, ln.Addr().String()
	})
	require.ErrorContains(t, err, "peer port: listen tcp "+ln.Addr().String())
	require.NoDirExists(t, dir, "nothing was touched")
}

// A crash while a folder is made leaves one that is made again.
func TestOpenMakesAnUnfinishedFolderAgain(t *testing.T) {
	dir := written(t, 1, nil)
	path := filepath.Join(dir, "member.json")
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, []byte(strings.Replace(string(b), `"ready"`, `"new"`, 1)), 0o600))
	n, err := openAlone(t, dir, nil)
	require.NoError(t, err)
	defer closeNode(t, n)
	write(t, n, 1)
}

// A folder that was begun for a member which no cluster has let in yet holds
// nothing, and may become another member's; but not under the name by which the
// first one may have been let in without hearing of it.
func TestOpenTakesAFolderThatNeverJoined(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	incarnations := map[string]bool{}
	for _, id := range []string{"n2", "n3", "n3"} {
		_, err := openAlone(t, dir, func(c *Config) {
			c.ID, c.InitialCluster = id, nil
			c.Join = func(r JoinRequest) (Joined, error) {
				incarnations[r.Incarnation] = true
				return Joined{}, errors.New("the id is in use")
			}
		})
		require.ErrorContains(t, err, "the id is in use")
	}
	require.Len(t, incarnations, 2)
	n, err := openAlone(t, dir, nil) // a first member, n1
	require.NoError(t, err)
	closeNode(t, n)
}

// Damage of any file is found at the start, and the file is named.
func TestOpenNamesADamagedFile(t *testing.T) {
	wal, bolt := func(*Config) {}, func(c *Config) { c.LogStore = LogStoreBoltDB }
	for _, c := range []struct {
		name   string
		use    func(*Config)
		writes int
		damage func(t *testing.T, dir string)
		err    string
	}{
		{"a bit of an entry in the wal", wal, 50, func(t *testing.T, dir string) {
			flip(t, tailSegment(t, dir), 1500, 1)
		}, "raft/wal: does not match its checksum"},
		{"a frame header in the wal", wal, 50, func(t *testing.T, dir string) {
			path := tailSegment(t, dir)
			flip(t, path, segmentEnd(t, path, 1, 5), 0xff)
		}, ".wal is damaged at offset"},
		{"the wal's first frame", wal, 50, func(t *testing.T, dir string) {
			flip(t, tailSegment(t, dir), 32, 0xff)
		}, ".wal is damaged at offset 32, after entry 0"},
		{"the wal cut short", wal, 50, func(t *testing.T, dir string) {
			require.NoError(t, os.Truncate(tailSegment(t, dir), 32))
		}, "raft/wal is empty and there is no snapshot"},
		{"the wal gone", wal, 50, func(t *testing.T, dir string) {
			require.NoError(t, os.RemoveAll(filepath.Join(dir, "raft", "wal")))
		}, "wal-meta.db"},
		{"the wal's index cut short", wal, 5, func(t *testing.T, dir string) {
			require.NoError(t, os.Truncate(filepath.Join(dir, "raft", "wal", "wal-meta.db"), 5000))
		}, "wal-meta.db is damaged"},
		{"a bit of an entry in bolt", bolt, 50, func(t *testing.T, dir string) {
			path := filepath.Join(dir, "raft", "log.db")
			b, err := os.ReadFile(path)
			require.NoError(t, err)
			for at := range b { // in every copy that old pages hold
				if strings.HasPrefix(string(b[at:]), strings.Repeat("x", 120)) {
					flip(t, path, int64(at)+50, 2)
				}
			}
		}, "raft/log.db: does not match its checksum"},
		{"bolt cut short", bolt, 50, func(t *testing.T, dir string) {
			require.NoError(t, os.Truncate(filepath.Join(dir, "raft", "log.db"), 9000))
		}, "log.db is damaged"},
		{"bolt gone", bolt, 5, func(t *testing.T, dir string) {
			require.NoError(t, os.Remove(filepath.Join(dir, "raft", "log.db")))
		}, "log.db: no such file or directory: a file of this data folder is missing"},
		{"term and vote cut short", wal, 5, func(t *testing.T, dir string) {
			require.NoError(t, os.Truncate(filepath.Join(dir, "raft", "stable.db"), 9000))
		}, "stable.db is damaged"},
		{"term and vote gone", wal, 5, func(t *testing.T, dir string) {
			require.NoError(t, os.Remove(filepath.Join(dir, "raft", "stable.db")))
		}, "stable.db: no such file or directory"},
		{"a bit of a snapshot", wal, 0, func(t *testing.T, dir string) {
			flip(t, filepath.Join(snapshotDir(t, dir), "state.bin"), 60, 1)
		}, "snapshots/"},
		{"a snapshot's description", wal, 0, func(t *testing.T, dir string) {
			require.NoError(t, os.Truncate(filepath.Join(snapshotDir(t, dir), "meta.json"), 10))
		}, "its meta.json cannot be read"},
		{"a snapshot's index", wal, 0, func(t *testing.T, dir string) {
			replaceInMeta(t, snapshotDir(t, dir), `"Index":(\d+)`, `"Index":999`)
		}, "its meta.json speaks of another"},
		{"a snapshot's term", wal, 0, func(t *testing.T, dir string) {
			replaceInMeta(t, snapshotDir(t, dir), `"Term":\d+`, `"Term":77`)
		}, "its meta.json speaks of term 77"},
		{"a snapshot's members", wal, 0, func(t *testing.T, dir string) {
			replaceInMeta(t, snapshotDir(t, dir), `"Configuration":`, `"Konfiguration":`)
		}, "its meta.json makes no sense"},
		{"the snapshots gone", wal, 0, func(t *testing.T, dir string) {
			require.NoError(t, os.RemoveAll(filepath.Join(dir, "snapshots")))
		}, "entries are missing"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var dir string
			if c.writes > 0 {
				dir = written(t, c.writes, c.use)
			} else {
				dir = snapshotted(t)
			}
			c.damage(t, dir)
			_, err := openAlone(t, dir, c.use)
			require.ErrorContains(t, err, c.err)
			require.Contains(t, err.Error(), dir)
		})
	}
}

// snapshotDir is where the newer of a member's two snapshots is.
func snapshotDir(t *testing.T, dir string) string {
	t.Helper()
	inner, err := raft.NewFileSnapshotStoreWithLogger(dir, retainSnapshots, newRaftLog(testLog(t), new(atomic.Bool)))
	require.NoError(t, err)
	metas, err := inner.List()
	require.NoError(t, err)
	require.Len(t, metas, 2, "the scenario: there is an older one")
	return filepath.Join(dir, "snapshots", metas[0].ID)
}

func replaceInMeta(t *testing.T, dir, old, new string) {
	t.Helper()
	path := filepath.Join(dir, "meta.json")
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	changed := regexp.MustCompile(old).ReplaceAll(b, []byte(new))
	require.NotEqual(t, string(b), string(changed))
	require.NoError(t, os.WriteFile(path, changed, 0o600))
}

// What a crash leaves of a snapshot that was being written is removed, and the
// member starts.
func TestOpenRemovesUnfinishedSnapshots(t *testing.T) {
	dir := snapshotted(t)
	tmp := filepath.Join(dir, "snapshots", "2-99-1790000000000.tmp")
	require.NoError(t, os.MkdirAll(tmp, 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(tmp, "state.bin"), []byte("half"), 0o600))
	n, err := openAlone(t, dir, nil)
	require.NoError(t, err)
	closeNode(t, n)
	require.NoDirExists(t, tmp)
}

// A torn last write is what a crash leaves, and no damage.
func TestOpenTakesATornLastWrite(t *testing.T) {
	dir := written(t, 20, nil)
	path := tailSegment(t, dir)
	_, base, err := newestSegment(filepath.Dir(path))
	require.NoError(t, err)
	flip(t, path, segmentEnd(t, path, base, 1<<62)-8-40, 0xff) // within the last batch
	n, err := openAlone(t, dir, nil)
	require.NoError(t, err)
	defer closeNode(t, n)
	write(t, n, 1)
}

// Close leaves no connection open, though raft's transport pools some.
func TestCloseLeavesNothingOpen(t *testing.T) {
	nodes := realCluster(t, 3, nil)
	ctx, cancel := within(20 * time.Second)
	defer cancel()
	_, err := nodes[0].Propose(ctx, []*trivetpb.Command{put("k", "v")})
	require.NoError(t, err)
	for _, n := range nodes {
		_, err := n.AwaitRead(ctx, ReadOptions{})
		require.NoError(t, err)
	}
	open := func(n *Node) int { return len(n.port.open()) }
	for _, n := range nodes {
		require.NotZero(t, open(n), "the scenario: members are connected")
	}
	for _, n := range nodes {
		stopped, done := context.WithCancel(ctx)
		done()
		n.Close(stopped)
		require.Zero(t, open(n))
		_, err := net.DialTimeout("tcp", n.PeerAddr(), time.Second)
		require.Error(t, err)
	}
}
