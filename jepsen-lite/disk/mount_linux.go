package disk

import (
	"fmt"
	"io"
	"log"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// Mount is a disk in a folder.
type Mount struct {
	dir    string
	server *fuse.Server
	served chan struct{}
}

// Mount mounts the disk over a folder, in the mount namespace of the calling
// thread; it takes root and /dev/fuse. One disk has one mount.
func (d *Disk) Mount(dir string) (*Mount, error) {
	s, err := fuse.NewServer(&server{RawFileSystem: fuse.NewDefaultRawFileSystem(), disk: d}, dir, &fuse.MountOptions{
		DirectMountStrict: true, FsName: "jepsen-lite", Name: "jepsen-lite",
		DisableXAttrs: true, DisableReadDirPlus: true,
		Logger: log.New(io.Discard, "", 0), // it is about requests that were interrupted
	})
	if err != nil {
		return nil, fmt.Errorf("cannot mount over %s by FUSE: %w", dir, err)
	}
	m := &Mount{dir: dir, server: s, served: make(chan struct{})}
	go func() {
		s.Serve()
		close(m.served)
	}()
	return m, nil
}

// unmountTimeout bounds the end of processes that were killed.
const unmountTimeout = 10 * time.Second

// Unmount takes the disk away, in the mount namespace of the calling thread, and
// returns when nothing of it is in the kernel any more. No process uses it.
func (m *Mount) Unmount() error {
	// Detached: a process that was killed a moment ago may still hold a file of it
	// while it is torn down. The last that lets go of it ends the server.
	if err := syscall.Unmount(m.dir, syscall.MNT_DETACH); err != nil {
		return fmt.Errorf("cannot unmount %s: %w", m.dir, err)
	}
	select {
	case <-m.served:
		return nil
	case <-time.After(unmountTimeout):
		return fmt.Errorf("somebody still uses a file of %s after %v", m.dir, unmountTimeout)
	}
}
