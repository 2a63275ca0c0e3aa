//go:build !linux

package main

// hugePages does nothing: other systems have no such question, or need none.
func hugePages(int64) (done func()) { return func() {} }
