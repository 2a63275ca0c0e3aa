//go:build !linux

package main

// calmMonitor does nothing: other systems have other timers.
func calmMonitor() {}
