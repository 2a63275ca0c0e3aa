//go:build !linux || !(amd64 || arm64)

package raftnode

// newDirectIO is for systems that have them.
func newDirectIO(string) (directIO, error) { return nil, errNoDirectIO }
