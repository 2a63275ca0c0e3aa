//go:build !linux || !(amd64 || arm64)

package raftnode

func newDirectIO() (directIO, error) { return nil, errNoDirectIO }
