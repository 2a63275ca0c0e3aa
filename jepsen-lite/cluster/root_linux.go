package cluster

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"trivet/jepsen-lite/disk"
	"trivet/jepsen-lite/nemesis"
	"trivet/jepsen-lite/network"
)

// rooted is what members have with root: a namespace each, a switch between them,
// a disk each.
type rooted struct {
	wire  *network.Switch
	disks map[string]*memberDisk
	space map[string]*namespace
	addr  map[string]netip.Addr
	mu    sync.Mutex
	rand  *rand.Rand
}

// memberDisk is a member's disk, over its data folder.
type memberDisk struct {
	*disk.Disk
	dir   string
	space *namespace
	mu    sync.Mutex
	mount *disk.Mount
}

// Ports of every member in its own network.
const rootAPIPort, rootPeerPort = 7071, 7072

// diskBytes is the size of a member's disk.
const diskBytes = 1 << 30

// openRoot makes namespaces, the switch and the disks. Its error says what is
// missing.
func openRoot(ids []string, dir string) (_ *rooted, err error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("this is not root")
	}
	r := &rooted{
		disks: map[string]*memberDisk{}, space: map[string]*namespace{}, addr: map[string]netip.Addr{},
		rand: rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())),
	}
	var ports []*network.Port
	defer func() {
		if err != nil {
			if r.wire == nil {
				for _, p := range ports {
					p.Device.Close()
				}
			}
			r.close(false)
		}
	}()
	// The clients' device is in the network that this process is in. Its name is
	// the lock of the addresses.
	net := -1
	for x := range 256 {
		tun, err := network.OpenTUN(fmt.Sprintf("jepsen%d", x), netip.AddrFrom4([4]byte{198, 18, byte(x), 1}))
		if errors.Is(err, network.ErrTaken) {
			continue
		}
		if err != nil {
			return nil, err
		}
		net = x
		ports = append(ports, &network.Port{ID: network.Clients, Address: netip.AddrFrom4([4]byte{198, 18, byte(x), 1}), Device: tun})
		break
	}
	if net < 0 {
		return nil, errors.New("all networks of 198.18.0.0/16 are taken")
	}
	for i, id := range ids {
		ns, err := openNamespace()
		if err != nil {
			return nil, err
		}
		r.space[id] = ns
		r.addr[id] = netip.AddrFrom4([4]byte{198, 18, byte(net), byte(11 + i)})
		err = ns.do(func() error {
			tun, err := network.OpenTUN("peers", r.addr[id])
			if err == nil {
				ports = append(ports, &network.Port{ID: id, Address: r.addr[id], Device: tun})
			}
			return err
		})
		if err != nil {
			return nil, err
		}
		path, err := filepath.Abs(filepath.Join(dir, id))
		if err != nil {
			return nil, err
		}
		if err := os.MkdirAll(path, 0o700); err != nil {
			return nil, err
		}
		d := &memberDisk{Disk: disk.New(diskBytes), dir: path, space: ns}
		if err := d.attach(); err != nil {
			return nil, err
		}
		r.disks[id] = d
	}
	r.wire = network.New(ports, rootPeerPort)
	return r, nil
}

func (d *memberDisk) attach() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.space.do(func() (err error) {
		d.mount, err = d.Mount(d.dir)
		return err
	})
}

// detached takes the disk from its folder, does f, and puts it back.
func (d *memberDisk) detached(f func()) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.space.do(func() (err error) {
		if d.mount != nil {
			if err := d.mount.Unmount(); err != nil {
				return err
			}
			d.mount = nil
		}
		f()
		d.mount, err = d.Mount(d.dir)
		return err
	})
}

// close ends it; what is on the disks is written into their folders where keep
// says so.
func (r *rooted) close(keep bool) {
	if r.wire != nil {
		r.wire.Close()
	}
	for _, d := range r.disks {
		_ = d.space.do(func() error {
			if d.mount == nil {
				return nil
			}
			return d.mount.Unmount() // it goes with the process anyway
		})
		if keep {
			_ = d.Export(d.dir) // more than nothing is welcome
		}
	}
	for _, ns := range r.space {
		ns.close()
	}
}

// environment sets what the nemesis can do.
func (r *rooted) environment(c *Cluster, env *nemesis.Environment) {
	env.Links, env.ClientLinks, env.Disks = r.wire, r.wire, &disks{r, c}
}

// disks is nemesis.Disks.
type disks struct {
	r *rooted
	c *Cluster
}

// Fill is that of nemesis.Disks. A member may stop when it cannot write.
func (d *disks) Fill(id string) error {
	d.c.members[id].mayEnd(true)
	d.r.disks[id].Fill(true)
	return nil
}

// Free is that of nemesis.Disks.
func (d *disks) Free(id string) error {
	d.r.disks[id].Fill(false)
	d.c.members[id].mayEnd(false)
	return nil
}

// Fail is that of nemesis.Disks.
func (d *disks) Fail(id string, fails bool) error {
	if fails {
		d.c.members[id].mayEnd(true)
	}
	d.r.disks[id].Fail(fails)
	if !fails {
		d.c.members[id].mayEnd(false)
	}
	return nil
}

// Slow is that of nemesis.Disks.
func (d *disks) Slow(id string, sync time.Duration) error {
	d.r.disks[id].Slow(sync)
	return nil
}

// LosePower is that of nemesis.Disks.
func (d *disks) LosePower(ids []string, torn bool) error {
	errs := make(chan error, len(ids))
	for _, id := range ids {
		go func() { errs <- d.c.Kill(id) }()
	}
	var all error
	for range ids {
		all = errors.Join(all, <-errs)
	}
	if all != nil {
		return all
	}
	for _, id := range ids {
		var chance *rand.Rand
		if torn {
			d.r.mu.Lock()
			chance = rand.New(rand.NewPCG(d.r.rand.Uint64(), 0))
			d.r.mu.Unlock()
		}
		m := d.r.disks[id]
		all = errors.Join(all, m.detached(func() { m.Disk.LosePower(chance) }))
	}
	return all
}
