package load

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strconv"
	"time"
)

// ticksPerSecond is USER_HZ, in which /proc tells CPU time: 100 on every platform
// that Go runs Linux on.
const ticksPerSecond = 100

// CPUSeconds returns what the processes have spent so far, user and system time of
// all their threads; children that have ended are not in it. It is Linux's /proc.
func CPUSeconds(pids ...int) (float64, error) {
	total := uint64(0)
	for _, pid := range pids {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return 0, err
		}
		ticks, err := cpuTicks(stat)
		if err != nil {
			return 0, fmt.Errorf("/proc/%d/stat: %w", pid, err)
		}
		total += ticks
	}
	return float64(total) / ticksPerSecond, nil
}

// cpuTicks reads utime and stime, fields 14 and 15 of proc(5)'s stat. The second
// field, the command in parentheses, may itself have blanks and parentheses.
func cpuTicks(stat []byte) (uint64, error) {
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 13 {
		return 0, fmt.Errorf("only %d fields", len(fields))
	}
	user, err := strconv.ParseUint(string(fields[11]), 10, 64)
	if err != nil {
		return 0, err
	}
	system, err := strconv.ParseUint(string(fields[12]), 10, 64)
	return user + system, err
}

// cpuBetween waits for start and then for end, and returns the CPU seconds of the
// processes, and of this one, in between. observe, which may be nil, is called at
// both.
func cpuBetween(ctx context.Context, pids []int, observe func(), start, end time.Time) (servers, own float64, err error) {
	var s, o [2]float64
	for i, at := range []time.Time{start, end} {
		select {
		case <-time.After(time.Until(at)):
		case <-ctx.Done():
			return 0, 0, ctx.Err()
		}
		if observe != nil {
			observe()
		}
		if s[i], err = CPUSeconds(pids...); err != nil {
			return 0, 0, err
		}
		if o[i], err = CPUSeconds(os.Getpid()); err != nil {
			return 0, 0, err
		}
	}
	return s[1] - s[0], o[1] - o[0], nil
}
