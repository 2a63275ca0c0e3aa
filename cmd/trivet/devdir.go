package main

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// devDir is the folder of a local cluster, locked for one `trivet dev`:
//
//	dev.lock     held by the dev that uses the folder; holds its process id
//	dev.json     what the cluster is (devState); whatever it does not account for,
//	             dev has not made and does not touch
//	n1/, n2/, …  the nodes' data folders
//	n1.log, …    the nodes' logs
type devDir struct {
	path  string
	lock  *os.File
	state devState
}

// devState is the content of dev.json.
type devState struct {
	Format int `json:"format"`
	// Token makes the cluster another than any that was here before.
	Token string `json:"token"`
	Nodes int    `json:"nodes"`
	// PeerPort is n1's. It is in the configuration that the nodes have agreed
	// on, so it stays.
	PeerPort int `json:"peer_port"`
	// Clear is how many nodes' files are still to be deleted before the cluster
	// begins. It is written first: a crash in between must not leave half of the
	// old data to the new cluster, nor half of the old cluster to itself.
	Clear int `json:"clear,omitempty"`
	// Begun is set once every node could serve. From then on a data folder that
	// is missing is a loss: made anew, the node would have forgotten what it
	// acknowledged, and would still be counted.
	Begun bool `json:"begun"`
}

const (
	devFormat    = 1
	devStateFile = "dev.json"
	devLockFile  = "dev.lock"
)

// devWants is what the command line says about the folder. Zero: nothing.
type devWants struct {
	nodes, peerPort int
	fresh           bool
}

// openDevDir makes and locks the folder and finds out which cluster it holds:
// the one that is there, or a new one, which is not written down before create.
func openDevDir(path string, wants devWants) (*devDir, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("--dir: %w", err)
	}
	lock, err := lockDevDir(path)
	if err != nil {
		return nil, err
	}
	d := &devDir{path: path, lock: lock}
	if err := d.load(wants); err != nil {
		d.close()
		return nil, err
	}
	return d, nil
}

func lockDevDir(path string) (*os.File, error) {
	name := filepath.Join(path, devLockFile)
	lock, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("--dir: %w", err)
	}
	err = syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		holder, _ := io.ReadAll(io.LimitReader(lock, 20))
		lock.Close()
		return nil, fmt.Errorf("folder %s is in use by another trivet dev (pid %s)", path, strings.TrimSpace(string(holder)))
	}
	if err == nil {
		err = lock.Truncate(0)
	}
	if err == nil {
		_, err = fmt.Fprintln(lock, os.Getpid())
	}
	if err != nil {
		lock.Close()
		return nil, fmt.Errorf("locking %s: %w", name, err)
	}
	return lock, nil
}

func (d *devDir) close() { d.lock.Close() }

// data and log are where a node's data folder and log are.
func (d *devDir) data(id string) string { return filepath.Join(d.path, id) }
func (d *devDir) log(id string) string  { return filepath.Join(d.path, id+".log") }

func devID(i int) string { return fmt.Sprintf("n%d", i+1) }

// load reads dev.json and holds it against what is wanted.
func (d *devDir) load(wants devWants) error {
	name := filepath.Join(d.path, devStateFile)
	b, err := os.ReadFile(name)
	found := err == nil
	switch {
	case found:
		if err := json.Unmarshal(b, &d.state); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if s := d.state; s.Format != devFormat || s.Token == "" || s.Nodes < 1 || s.Nodes > maxDevNodes || s.Clear < 0 || s.Clear > maxDevNodes {
			return fmt.Errorf("%s: not a file that this version of trivet dev wrote", name)
		}
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if !found || wants.fresh {
		old := d.state
		d.state = devState{
			Format: devFormat, Token: rand.Text(), Nodes: wants.nodes, PeerPort: wants.peerPort,
			Clear: max(old.Nodes, old.Clear),
		}
		if d.state.Nodes == 0 {
			d.state.Nodes = defaultDevNodes
		}
		if d.state.PeerPort == 0 {
			d.state.PeerPort = defaultDevPeerPort
		}
		return d.checkStrangers()
	}
	s := d.state
	if wants.nodes != 0 && wants.nodes != s.Nodes {
		return fmt.Errorf("--nodes: folder %s holds a cluster of %d nodes, not %d (--fresh begins anew)", d.path, s.Nodes, wants.nodes)
	}
	if wants.peerPort != 0 && wants.peerPort != s.PeerPort {
		return fmt.Errorf("--peer-port: the cluster in folder %s has its peer ports from %d on, not %d (--fresh begins anew)", d.path, s.PeerPort, wants.peerPort)
	}
	if s.Clear > 0 {
		return d.checkStrangers()
	}
	for i := range s.Nodes {
		if _, err := os.Stat(filepath.Join(d.data(devID(i)), "member.json")); s.Begun && err != nil {
			return fmt.Errorf("the data of %s are missing from folder %s: %w (--fresh begins anew)", devID(i), d.path, err)
		}
	}
	return nil
}

// checkStrangers fails where the new cluster would need a name that somebody
// else's file or folder has.
func (d *devDir) checkStrangers() error {
	for i := d.state.Clear; i < d.state.Nodes; i++ {
		for _, name := range []string{d.data(devID(i)), d.log(devID(i))} {
			if _, err := os.Lstat(name); err == nil {
				return fmt.Errorf("%s is there already, and trivet dev did not make it: choose another --dir", name)
			}
		}
	}
	return nil
}

// create writes a new cluster down and deletes what an old one left.
func (d *devDir) create() error {
	if d.state.Begun {
		return nil
	}
	if err := d.save(); err != nil {
		return err
	}
	if d.state.Clear == 0 {
		return nil
	}
	for i := range d.state.Clear {
		for _, name := range []string{d.data(devID(i)), d.log(devID(i))} {
			if err := os.RemoveAll(name); err != nil {
				return fmt.Errorf("--fresh: %w", err)
			}
		}
	}
	d.state.Clear = 0
	return d.save()
}

// begun notes that every node could serve.
func (d *devDir) begun() error {
	if d.state.Begun {
		return nil
	}
	d.state.Begun = true
	return d.save()
}

// save writes dev.json, whole or not at all.
func (d *devDir) save() error {
	b, err := json.MarshalIndent(d.state, "", "  ")
	if err != nil {
		return err
	}
	name := filepath.Join(d.path, devStateFile)
	f, err := os.OpenFile(name+".tmp", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(append(b, '\n'))
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	return nil
}

// lastLine is the last line of a log behind offset: what a process had to say
// before it ended.
func lastLine(name string, offset int64) string {
	f, err := os.Open(name)
	if err != nil {
		return ""
	}
	defer f.Close()
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return ""
	}
	const most = 4 << 10
	b := make([]byte, min(end-min(offset, end), most))
	if _, err := f.ReadAt(b, end-int64(len(b))); err != nil {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return lines[len(lines)-1]
}
