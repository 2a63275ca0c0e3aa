package raftnode

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/hashicorp/raft"
	"github.com/hashicorp/raft-wal/fs"
	"github.com/hashicorp/raft-wal/types"
	"github.com/stretchr/testify/require"
)

// powerFiles is real files that can lose power. What is left then is what was
// synced, and of each sector that was written since either that or what it was
// before. A file that was never synced whole is gone.
type powerFiles struct {
	types.VFS
	mu    sync.Mutex
	files map[string]*powerFile
	left  int // syncs until the power fails, in the middle of one
}

var errPower = errors.New("no power")

const sector = 512

type powerFile struct {
	segmentFile
	disk    *powerFiles
	path    string
	durable []byte
	whole   bool
}

func (d *powerFiles) Create(dir, name string, size uint64) (types.WritableFile, error) {
	f, err := d.VFS.Create(dir, name, size)
	return d.open(filepath.Join(dir, name), f, err)
}

func (d *powerFiles) OpenWriter(dir, name string) (types.WritableFile, error) {
	f, err := d.VFS.OpenWriter(dir, name)
	return d.open(filepath.Join(dir, name), f, err)
}

func (d *powerFiles) open(path string, f types.WritableFile, err error) (types.WritableFile, error) {
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	p := d.files[path]
	if p == nil {
		p = &powerFile{disk: d, path: path}
		d.files[path] = p
	}
	p.segmentFile = f.(segmentFile)
	return p, nil
}

func (d *powerFiles) Delete(dir, name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.files, filepath.Join(dir, name))
	return d.VFS.Delete(dir, name)
}

func (d *powerFiles) syncData(f segmentFile) error { return f.(*powerFile).sync() }

func (f *powerFile) Sync() error {
	err := f.sync()
	f.whole = f.whole || err == nil
	return err
}

func (f *powerFile) sync() error {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if f.disk.left--; f.disk.left < 0 {
		return errPower
	}
	b, err := os.ReadFile(f.path)
	f.durable = b
	return err
}

// openDirect is for direct writes, each of which is a sync.
func (d *powerFiles) openDirect(path string) (directFile, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return powerDirect{plainDirect{d.files[path]}, d.files[path]}, nil
}

type powerDirect struct {
	plainDirect
	file *powerFile
}

func (f powerDirect) write(at, end int64, parts ...[]byte) error {
	if err := f.plainDirect.write(at, end, parts...); err != nil {
		return err
	}
	return f.file.sync()
}

// lose leaves of the files what a loss of power does.
func (d *powerFiles) lose(t *testing.T, rng *rand.Rand) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for path, f := range d.files {
		if !f.whole {
			require.NoError(t, os.Remove(path))
			delete(d.files, path)
			continue
		}
		b, err := os.ReadFile(path)
		require.NoError(t, err)
		before := append(f.durable, make([]byte, max(0, len(b)-len(f.durable)))...)
		for at := 0; at < len(b); at += sector {
			if end := min(at+sector, len(b)); rng.IntN(2) == 0 {
				copy(b[at:end], before[at:end])
			}
		}
		require.NoError(t, os.WriteFile(path, b, 0o600))
		f.durable = b
	}
}

// Power is lost in the middle of a batch, again and again: the log holds every
// batch that it took, and of the last one all or nothing, and none of it looks
// like damage.
func TestWALPowerLoss(t *testing.T) {
	for seed := range uint64(12) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 0))
			dir := t.TempDir()
			disk := &powerFiles{VFS: fs.New(), files: map[string]*powerFile{}}
			files := segmentFiles{VFS: disk, syncData: disk.syncData}
			if seed%2 == 1 {
				files.direct = directFunc(disk.openDirect)
			}
			var stored []*raft.Log // without what was under way
			var under []*raft.Log
			for range 15 {
				disk.left = 1 << 30
				l := openWALFiles(t, dir, files, smallSegment)
				require.NoError(t, checkWALTail(dir, l))
				last, err := l.LastIndex()
				require.NoError(t, err)
				if last == uint64(len(stored)+len(under)) {
					stored = append(stored, under...)
				}
				under = nil
				require.EqualValues(t, len(stored), last)
				for i, want := range stored {
					var got raft.Log
					require.NoError(t, l.GetLog(uint64(i+1), &got))
					require.True(t, bytes.Equal(want.Data, got.Data), "entry %d", i+1)
				}
				disk.mu.Lock()
				disk.left = rng.IntN(10)
				disk.mu.Unlock()
				for range 20 { // more than the syncs that are left
					under = nil
					for range 1 + rng.IntN(3) {
						// Few sizes: frames of one batch begin where those of another did.
						data := make([]byte, []int{100, 1000, 6000}[rng.IntN(3)])
						for i := range data {
							data[i] = byte(rng.Uint32())
						}
						under = append(under, &raft.Log{Index: uint64(len(stored) + len(under) + 1), Term: 1, Data: data})
					}
					if err := l.StoreLogs(under); err != nil {
						require.ErrorIs(t, err, errPower)
						break
					}
					stored = append(stored, under...)
				}
				require.NoError(t, l.Close())
				disk.lose(t, rng)
			}
		})
	}
}

// A process is killed before the sync of a batch, which the next one finds: that is there
// from then on, also where the power is lost before anything else is written.
func TestWALFoundIsDurable(t *testing.T) {
	for _, direct := range []bool{false, true} {
		for seed := range uint64(4) {
			dir := t.TempDir()
			disk := &powerFiles{VFS: fs.New(), files: map[string]*powerFile{}, left: 3}
			files := segmentFiles{VFS: disk, syncData: disk.syncData}
			if direct {
				files.direct = directFunc(disk.openDirect)
			}
			l := openWALFiles(t, dir, files, smallSegment)
			var err error
			for i := uint64(1); err == nil; i++ {
				err = l.StoreLog(&raft.Log{Index: i, Term: 1, Data: bytes.Repeat([]byte("entry"), 400)})
			}
			require.ErrorIs(t, err, errPower)
			require.NoError(t, l.Close()) // as a kill: nothing is written or synced
			disk.left = 1 << 30
			l = openWALFiles(t, dir, files, smallSegment)
			found, err := l.LastIndex()
			require.NoError(t, err)
			require.NotZero(t, found)
			require.NoError(t, l.Close())
			disk.lose(t, rand.New(rand.NewPCG(seed, 1)))
			l = openWALFiles(t, dir, files, smallSegment)
			last, err := l.LastIndex()
			require.NoError(t, err)
			require.Equal(t, found, last)
			require.NoError(t, l.Close())
		}
	}
}
