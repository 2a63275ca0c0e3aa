package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"
)

// lookupTimeout bounds the resolving of a host name at the start.
const lookupTimeout = 10 * time.Second

// listen opens the listener that a flag names. Unless insecure is set, it
// refuses an address that others than this machine can reach: the HTTP API lets
// everyone in who gets there, and the peer port is the whole cluster.
func listen(ctx context.Context, flag, address string, insecure bool) (net.Listener, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil || port == "" {
		return nil, fmt.Errorf("--%s: %q is not HOST:PORT", flag, address)
	}
	if !insecure {
		if err := onlyLoopback(ctx, host); err != nil {
			return nil, fmt.Errorf("--%s: %s %w", flag, address, err)
		}
	}
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("--%s: %s is in use by another process", flag, address)
	case err != nil:
		return nil, fmt.Errorf("--%s: %w", flag, err)
	}
	// What counts is where it listens now: a name may resolve differently the
	// second time.
	if !insecure && !isLoopback(ln.Addr()) {
		ln.Close()
		return nil, fmt.Errorf("--%s: %s is beyond loopback (%s), which takes --insecure", flag, address, ln.Addr())
	}
	return ln, nil
}

var errEverywhere = errors.New("is beyond loopback (every address of this machine), which takes --insecure")

// onlyLoopback returns why a host is not this machine alone.
func onlyLoopback(ctx context.Context, host string) error {
	if host == "" {
		return errEverywhere
	}
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	addrs, err := net.DefaultResolver.LookupIPAddr(ctx, host)
	if err != nil {
		return fmt.Errorf("cannot be listened on: %w", err)
	}
	for _, a := range addrs {
		switch {
		case a.IP.IsUnspecified():
			return errEverywhere
		case !a.IP.IsLoopback():
			return fmt.Errorf("is beyond loopback (%s), which takes --insecure", a.String())
		}
	}
	return nil
}

func isLoopback(a net.Addr) bool {
	tcp, ok := a.(*net.TCPAddr)
	return ok && tcp.IP.IsLoopback()
}

// reachable returns the address under which others can dial what listens on
// address: the address itself, with the port that it got, or "" where it names
// no host.
func reachable(address string, ln net.Listener) string {
	host, _, err := net.SplitHostPort(address)
	if err != nil || host == "" {
		return ""
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		return ""
	}
	return net.JoinHostPort(host, portOf(ln))
}

func portOf(ln net.Listener) string {
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	return port
}
