//go:build !linux

package main

import (
	"errors"
	"os"
)

// isTerminal says that the file is most likely a terminal.
func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	null, nerr := os.Stat(os.DevNull)
	return err == nil && nerr == nil && info.Mode()&os.ModeCharDevice != 0 && !os.SameFile(info, null)
}

var errNoJobControl = errors.New("not on this system")

func foreground(*os.File) (group int, err error) { return 0, errNoJobControl }

func setForeground(*os.File, int) error { return errNoJobControl }
