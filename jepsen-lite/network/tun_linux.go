package network

import (
	"errors"
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// ErrTaken says that a device of that name is in use.
var ErrTaken = errors.New("the name is taken")

// OpenTUN makes a device in the network namespace of the calling thread, gives it
// an address of a /24 network and has it up, with loopback. It is gone when it is
// closed.
func OpenTUN(name string, address netip.Addr) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("/dev/net/tun: %w", err)
	}
	ok := false
	defer func() {
		if !ok {
			unix.Close(fd)
		}
	}()
	r, err := unix.NewIfreq(name)
	if err != nil {
		return nil, err
	}
	r.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, r); err != nil {
		if errors.Is(err, unix.EBUSY) {
			err = ErrTaken
		}
		return nil, fmt.Errorf("TUN device %s: %w", name, err)
	}
	sock, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(sock)
	set := func(what string, name string, request uint, fill func(*unix.Ifreq) error) error {
		r, err := unix.NewIfreq(name)
		if err == nil {
			if err = fill(r); err == nil {
				err = unix.IoctlIfreq(sock, request, r)
			}
		}
		if err != nil {
			return fmt.Errorf("%s of %s: %w", what, name, err)
		}
		return nil
	}
	a := address.As4()
	up := func(r *unix.Ifreq) error { r.SetUint16(unix.IFF_UP | unix.IFF_RUNNING); return nil }
	if err := errors.Join(
		set("address", name, unix.SIOCSIFADDR, func(r *unix.Ifreq) error { return r.SetInet4Addr(a[:]) }),
		set("netmask", name, unix.SIOCSIFNETMASK, func(r *unix.Ifreq) error { return r.SetInet4Addr([]byte{255, 255, 255, 0}) }),
		set("start", name, unix.SIOCSIFFLAGS, up),
		set("start", "lo", unix.SIOCSIFFLAGS, up),
	); err != nil {
		return nil, err
	}
	ok = true
	return os.NewFile(uintptr(fd), name), nil
}
