package raftnode

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"

	"github.com/hashicorp/raft"

	"trivet/internal/mutant"
)

// A member whose data folder is gone has forgotten its vote and what it has
// acknowledged. Started over an empty folder under its old id, it could vote
// again in the same term, or help to elect a leader that lacks what it once
// helped to commit. So each data folder has a name of its own, its incarnation,
// which members tell each other in the handshake. Each remembers, durably, the
// one that it last saw of every other, and talks to no other folder under that
// id.
//
// What makes another folder good is that the cluster let it in anew: joined_at,
// the log entry by which it was, is greater than what is remembered. The leader
// gives it to a new incarnation of an id only when the old one was removed. A
// removal leaves its own entry in place of the folder, so that one that was let
// in before stays out, even where the id has been added again and the new folder
// has not been seen yet.

// metFolder is what is remembered of one id.
type metFolder struct {
	// Incarnation is empty where the id was removed: at JoinedAt.
	Incarnation string `json:"incarnation,omitempty"`
	JoinedAt    uint64 `json:"joined_at"`
}

// met remembers the data folders of the other members.
type met struct {
	save func(map[string]metFolder) error

	// writing is held while the file is written, by whoever has something new:
	// about once in the life of each member.
	writing sync.Mutex

	mu      sync.Mutex
	folders map[string]metFolder
}

// maxMet bounds what is remembered of removed ids.
const maxMet = 1024

func newMet(folders map[string]metFolder, save func(map[string]metFolder) error) *met {
	m := &met{save: save, folders: map[string]metFolder{}}
	for id, f := range folders {
		m.folders[id] = f
	}
	return m
}

// errOtherFolder is wrapped by why a member's folder is not the one it was.
var errOtherFolder = errors.New("came back with another data folder")

// check says whether a member's folder is the one that it had, and remembers a
// new one before it returns: what that one acknowledges may be counted from then
// on. While this member has yet to begin (forming), so has whatever it met: then
// any folder will do that is not the one that another member began with.
func (m *met) check(id, incarnation string, joinedAt uint64, forming bool) error {
	known, same := m.known(id, incarnation, joinedAt)
	if forming && errors.Is(same, errOtherFolder) {
		same = nil
	}
	if same != nil || known {
		return same
	}
	m.writing.Lock()
	defer m.writing.Unlock()
	if known, same := m.known(id, incarnation, joinedAt); !forming && same != nil || known {
		return same
	}
	return m.set(map[string]metFolder{id: {incarnation, joinedAt}})
}

// known compares a folder with what is remembered.
func (m *met) known(id, incarnation string, joinedAt uint64) (known bool, err error) {
	m.mu.Lock()
	f, ok := m.folders[id]
	m.mu.Unlock()
	switch {
	case mutant.On("any-folder"):
		return true, nil
	case ok && f.Incarnation == "" && joinedAt <= f.JoinedAt:
		return false, fmt.Errorf("member %s %w than it was removed with at entry %d: join with an empty one", id, errNotAnew, f.JoinedAt)
	case incarnation == "": // of a version that has none
		return true, nil
	case ok && f.Incarnation == incarnation:
		return true, nil
	case ok && joinedAt <= f.JoinedAt:
		return false, fmt.Errorf("member %s %w: remove it and add it again", id, errOtherFolder)
	}
	return false, nil
}

// errNotAnew is wrapped by why a folder that was removed stays out.
var errNotAnew = errors.New("comes with no newer data folder")

// folder returns the incarnation that an id was last seen with, "" for none.
func (m *met) folder(id string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.folders[id].Incarnation
}

// removed notes who is no member any more as of a committed configuration.
func (m *met) removed(index uint64, before, now raft.Configuration) error {
	gone := map[string]metFolder{}
	m.mu.Lock()
	for _, s := range before.Servers {
		id := string(s.ID)
		// What was let in after it stays: the log is replayed at each start.
		if f := m.folders[id]; !hasServer(now, id) && f.JoinedAt <= index && f != (metFolder{JoinedAt: index}) {
			gone[id] = metFolder{JoinedAt: index}
		}
	}
	m.mu.Unlock()
	if len(gone) == 0 {
		return nil
	}
	m.writing.Lock()
	defer m.writing.Unlock()
	return m.set(gone)
}

// set writes what changes. Under writing.
func (m *met) set(changes map[string]metFolder) error {
	m.mu.Lock()
	next := make(map[string]metFolder, len(m.folders)+len(changes))
	for id, f := range m.folders {
		next[id] = f
	}
	m.mu.Unlock()
	for id, f := range changes {
		next[id] = f
	}
	for len(next) > maxMet { // drop the removal that lies back farthest
		oldest := ""
		for id, f := range next {
			if f.Incarnation == "" && (oldest == "" || f.JoinedAt < next[oldest].JoinedAt) {
				oldest = id
			}
		}
		if oldest == "" {
			break
		}
		delete(next, oldest)
	}
	if err := m.save(next); err != nil {
		return err
	}
	m.mu.Lock()
	m.folders = next
	m.mu.Unlock()
	return nil
}

// metFile is the content of members.json.
type metFile struct {
	Format  int                  `json:"format"`
	Members map[string]metFolder `json:"members"`
}

func (d *dataDir) readMet() (map[string]metFolder, error) {
	path := d.file("members.json")
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var f metFile
	if err := json.Unmarshal(b, &f); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if f.Format != 1 {
		return nil, fmt.Errorf("%s: has format %d; this version knows 1", path, f.Format)
	}
	return f.Members, nil
}

func (d *dataDir) setMet(folders map[string]metFolder) error {
	return d.writeJSON("members.json", metFile{1, folders})
}
