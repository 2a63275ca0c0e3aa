//go:build !linux

package cluster

import (
	"errors"
	"net/netip"
	"os/exec"

	"trivet/jepsen-lite/nemesis"
)

// Namespaces, TUN devices and this kind of FUSE are Linux's.

type namespace struct{}

func (*namespace) launch(*exec.Cmd) error { return errors.ErrUnsupported }

type memberDisk struct{}

func (*memberDisk) detached(func()) error { return errors.ErrUnsupported }
func (*memberDisk) Wipe()                 {}

type rooted struct {
	disks map[string]*memberDisk
	space map[string]*namespace
	addr  map[string]netip.Addr
}

const rootAPIPort, rootPeerPort = 7071, 7072

func openRoot([]string, string) (*rooted, error) { return nil, errors.New("this is not Linux") }

func (*rooted) close(bool)                                 {}
func (*rooted) environment(*Cluster, *nemesis.Environment) {}
