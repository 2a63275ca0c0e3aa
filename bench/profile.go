package main

import (
	"errors"
	"os"
	"runtime/pprof"
)

// startProfiles starts the profiles that are asked for. The function that it returns
// ends them and writes what is left to write.
func (f *flags) startProfiles() (end func() error, err error) {
	var cpu *os.File
	if f.cpuProfile != "" {
		if cpu, err = os.Create(f.cpuProfile); err != nil {
			return nil, err
		}
		if err := pprof.StartCPUProfile(cpu); err != nil {
			cpu.Close()
			return nil, err
		}
	}
	return func() error {
		var failed error
		if cpu != nil {
			pprof.StopCPUProfile()
			failed = cpu.Close()
		}
		if f.memProfile != "" {
			mem, err := os.Create(f.memProfile)
			if err != nil {
				return errors.Join(failed, err)
			}
			failed = errors.Join(failed, pprof.Lookup("allocs").WriteTo(mem, 0), mem.Close())
		}
		return failed
	}, nil
}
