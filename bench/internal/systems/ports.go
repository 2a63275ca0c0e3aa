package systems

import (
	"fmt"
	"net"
	"strconv"
	"sync"
)

// Ports returns a source of free ports of loopback: from first on, or, where that is
// 0, the kernel's choice. It may be called by several goroutines.
func Ports(first int) func() (int, error) {
	var mu sync.Mutex
	next := first
	return func() (int, error) {
		mu.Lock()
		defer mu.Unlock()
		for {
			l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(next)))
			if first != 0 {
				next++
				if next > 65535 {
					return 0, fmt.Errorf("no free port from %d on", first)
				}
			}
			if err == nil {
				port := l.Addr().(*net.TCPAddr).Port
				return port, l.Close()
			}
			if first == 0 {
				return 0, err
			}
		}
	}
}
