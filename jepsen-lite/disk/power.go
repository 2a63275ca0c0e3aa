package disk

import (
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
)

// LosePower takes from the disk what was never synced, all of it, or with chance
// what that leaves over. Nobody uses the disk: it is not mounted.
func (d *Disk) LosePower(chance *rand.Rand) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.nodes, d.used = map[uint64]*node{}, 0
	d.survive(d.root, chance)
}

// survive puts n and all that is in it on the disk again.
func (d *Disk) survive(n *node, chance *rand.Rand) {
	d.nodes[n.id] = n
	n.lookups = 0
	if !n.folder() {
		n.content.losePower(chance)
		d.used += n.content.used()
		return
	}
	if chance == nil || chance.IntN(2) == 0 {
		n.names = maps.Clone(n.synced)
	}
	n.synced = maps.Clone(n.names)
	for _, name := range slices.Sorted(maps.Keys(n.names)) { // a seed is a fate
		child := n.names[name]
		if d.nodes[child.id] == nil {
			d.survive(child, chance)
		}
		child.parent, child.name = n, name
	}
}

// Wipe leaves an empty disk. It is not mounted.
func (d *Disk) Wipe() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.root.names, d.root.synced, d.root.lookups = map[string]*node{}, map[string]*node{}, 0
	d.nodes, d.used = map[uint64]*node{rootID: d.root}, 0
}

// Export writes what is on the disk into a folder, synced or not.
func (d *Disk) Export(dir string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return export(d.root, dir)
}

func export(n *node, path string) error {
	if !n.folder() {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, os.FileMode(n.mode&0o777))
		if err != nil {
			return err
		}
		defer f.Close()
		for i, p := range n.content.pages {
			if p == nil || p == reserved {
				continue // stays a hole
			}
			if _, err := f.WriteAt(p[:], int64(i)*pageBytes); err != nil {
				return err
			}
		}
		return f.Truncate(n.content.size)
	}
	if err := os.Mkdir(path, os.FileMode(n.mode&0o777)); err != nil && !os.IsExist(err) {
		return err
	}
	for name, child := range n.names {
		if err := export(child, filepath.Join(path, name)); err != nil {
			return err
		}
	}
	return nil
}

// forget is the kernel's that does not know a node any more.
func (d *Disk) forget(id, lookups uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if n := d.nodes[id]; n != nil {
		n.lookups -= min(n.lookups, lookups)
		d.release(n)
	}
}

// bytes and links are what stat shows, with d.mu held.
func (n *node) bytes() int64 {
	if n.folder() {
		return pageBytes
	}
	return n.content.size
}

func (n *node) links() uint32 {
	switch {
	case n.folder():
		return 2
	case n.parent == nil:
		return 0
	}
	return 1
}
