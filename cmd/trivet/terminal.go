package main

import "os"

// terminalOf returns the terminal that a stream is; nil where it is none.
func terminalOf(stream any) *os.File {
	if f, ok := stream.(*os.File); ok && isTerminal(f) {
		return f
	}
	return nil
}
