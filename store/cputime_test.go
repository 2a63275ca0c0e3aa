//go:build !linux

package store

import "time"

var processStart = time.Now()

// threadTime would be the thread's processor time; elsewhere than on Linux it is
// the clock's, which counts what others did meanwhile as well.
func threadTime() time.Duration { return time.Since(processStart) }
