package cluster

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// The wall clock of one process cannot be moved from outside: Linux has it once
// for all (time namespaces have monotonic clocks of their own, not that one), and
// a Go program asks the kernel without the C library, so that nothing can be put
// in between. So a program is built whose time.Now has a wall clock that another
// process can move: the standard library's time.go, with one line more, put in
// its place by `go build -overlay`. Monotonic readings, timers and the program's
// own source are what they are in every build.

// wallVariable names the file with a process's shift, 8 bytes of seconds.
const wallVariable = "JEPSEN_LITE_WALL"

// wallSource is a file more in package time.
const wallSource = `package time

import (
	"syscall"
	"sync/atomic"
	"unsafe"
)

var wallShift = func() *int64 {
	path, ok := syscall.Getenv("` + wallVariable + `")
	if !ok {
		return new(int64)
	}
	fd, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		panic("wall clock: " + err.Error())
	}
	b, err := syscall.Mmap(fd, 0, 8, syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		panic("wall clock: " + err.Error())
	}
	syscall.Close(fd)
	return (*int64)(unsafe.Pointer(&b[0]))
}()

func wallShifted(sec int64) int64 {
	if wallShift == nil {
		return sec
	}
	return sec + atomic.LoadInt64(wallShift)
}
`

const (
	wallBefore = "func Now() Time {\n\tsec, nsec, mono := runtimeNow()\n"
	wallAfter  = wallBefore + "\tsec = wallShifted(sec)\n"
)

// BuildWithWallClocks builds a package of the module into dir/trivet such that
// Jump works on its processes, and returns the path. It builds the standard
// library anew, which the first time takes a while.
func BuildWithWallClocks(ctx context.Context, dir, pkg string, tags string) (string, error) {
	root, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return "", err
	}
	std := filepath.Join(strings.TrimSpace(string(root)), "src", "time")
	source, err := os.ReadFile(filepath.Join(std, "time.go"))
	if err != nil {
		return "", err
	}
	if strings.Count(string(source), wallBefore) != 1 {
		return "", errors.New("this version of Go has another time.Now than the one whose wall clock can be moved")
	}
	dir, err = filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	now, shift, overlay := filepath.Join(dir, "time.go.txt"), filepath.Join(dir, "wall.go.txt"), filepath.Join(dir, "overlay.json")
	replace, err := json.Marshal(map[string]map[string]string{"Replace": {
		filepath.Join(std, "time.go"): now, filepath.Join(std, "jepsen_wall.go"): shift,
	}})
	if err != nil {
		return "", err
	}
	if err := errors.Join(
		os.WriteFile(now, []byte(strings.Replace(string(source), wallBefore, wallAfter, 1)), 0o644),
		os.WriteFile(shift, []byte(wallSource), 0o644),
		os.WriteFile(overlay, replace, 0o644),
	); err != nil {
		return "", err
	}
	path := filepath.Join(dir, "trivet")
	if out, err := exec.CommandContext(ctx, "go", "build", "-overlay", overlay, "-tags", tags, "-o", path, pkg).CombinedOutput(); err != nil {
		return "", fmt.Errorf("cannot build %s with a wall clock that can be moved: %w\n%s", pkg, err, out)
	}
	return path, errors.Join(os.Remove(now), os.Remove(shift), os.Remove(overlay))
}

// wall is the shift of a member's wall clock.
func (c *Cluster) wall(id string) string { return filepath.Join(c.cfg.Dir, id+".wall") }

// Jump is that of nemesis.Clocks.
func (c *Cluster) Jump(id string, by time.Duration) error {
	f, err := os.OpenFile(c.wall(id), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	// In place: the process has the file mapped.
	_, err = f.WriteAt(binary.NativeEndian.AppendUint64(nil, uint64(int64(by/time.Second))), 0)
	return errors.Join(err, f.Close())
}
