package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"trivet/client"
)

// Exit statuses. The commands that talk to a cluster use them all; serve and
// dev exit with exitNo where they cannot start or had to give up.
const (
	exitDone = 0
	// exitNo: no such key, or a condition did not hold.
	exitNo = 1
	// exitUsage: the command line, the environment or the request is wrong.
	exitUsage = 2
	// exitUnserved: no node could serve it; certainly not applied.
	exitUnserved = 3
	// exitUnknown: a write may have been applied, or may yet be.
	exitUnknown = 4
)

// exitError is an error that knows its exit status.
type exitError struct {
	status int
	err    error // nil: the status says it all, and nothing is printed
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit status %d", e.status)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// failf is an error with an exit status.
func failf(status int, format string, args ...any) error {
	return &exitError{status, fmt.Errorf(format, args...)}
}

// done is a failure to print the result of a write that was applied. To call it
// not applied would be wrong; that its caller does not know the result is right.
func done(err error) error {
	if err == nil {
		return nil
	}
	return failf(exitUnknown, "applied, but the result cannot be printed: %w", err)
}

// withStatus gives err an exit status, unless it has one.
func withStatus(status int, err error) error {
	var own *exitError
	var fromClient *client.Error
	switch {
	case err == nil, errors.As(err, &own):
		return err
	case errors.As(err, &fromClient):
		status = clientStatus(fromClient)
	}
	return &exitError{status, err}
}

// clientStatus is the exit status of a failed call.
func clientStatus(err *client.Error) int {
	for _, c := range []struct {
		status int
		match  []error
	}{
		// First: whatever else is known of a write, this is what counts.
		{exitUnknown, []error{client.ErrUnknown}},
		{exitNo, []error{
			client.ErrNotFound, client.ErrConflict, client.ErrNotANumber, client.ErrOverflow,
			client.ErrLeaseNotFound, client.ErrGuardFailed,
		}},
		{exitUsage, []error{client.ErrBadRequest, client.ErrFutureRevision, client.ErrTooLarge}},
	} {
		for _, target := range c.match {
			if errors.Is(err, target) {
				return c.status
			}
		}
	}
	return exitUnserved
}

// explain returns the exit status of an error and the line to print, "" for
// none. What has no status comes from the parsing of the command line.
func explain(cmd *cobra.Command, err error) (status int, line string) {
	var e *exitError
	if !errors.As(err, &e) {
		return exitUsage, oneLine(err) + " (see " + cmd.CommandPath() + " --help)"
	}
	if e.err == nil {
		return e.status, ""
	}
	return e.status, oneLine(e.err)
}

// oneLine is the error's text without line breaks, and without the name that
// run puts in front of every one.
func oneLine(err error) string {
	lines := strings.FieldsFunc(err.Error(), func(r rune) bool { return r == '\n' || r == '\r' })
	for i := range lines {
		lines[i] = strings.TrimSpace(lines[i])
	}
	return strings.TrimPrefix(strings.Join(lines, "; "), "trivet: ")
}
