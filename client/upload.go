package client

import (
	"errors"
	"io"
	"time"
)

// upload is a body that is too large to be held: it is read anew for each
// attempt. net/http reads it in a goroutine of its own, through a sendBody, which
// hands it back to the attempt when it is detached: no lock but that one.
type upload struct {
	file io.ReadSeeker
	// start is where the body begins in the file, size how long it is.
	start, size int64
	// progress is told how much was read; nil for nobody.
	progress func(int64)

	// n is how much was read in this attempt, err what reading failed with.
	n   int64
	err error
	// stall ends the attempt where nothing moves.
	stall *time.Timer
}

const (
	// uploadIdle is how long a node may take nothing of the body.
	uploadIdle = time.Minute
	// uploadPatience is how long a node may take when it has all of it: the
	// members verify it and decode it.
	uploadPatience = 5 * time.Minute
)

// errShrunk: a file ended before the length that it had.
var errShrunk = errors.New("it became shorter meanwhile")

// rewind begins an attempt.
func (u *upload) rewind() error {
	u.n, u.err = 0, nil
	_, err := u.file.Seek(u.start, io.SeekStart)
	return err
}

// watch has end called where nothing moves for too long; the function that it
// returns ends that.
func (u *upload) watch(end func()) (stop func()) {
	u.stall = time.AfterFunc(uploadIdle, end)
	return func() { u.stall.Stop() }
}

// state says whether all of the body was read in this attempt, and what reading
// failed with.
func (u *upload) state() (whole bool, err error) {
	return u.n == u.size, u.err
}

func (u *upload) Read(p []byte) (int, error) {
	if u.n == u.size {
		return 0, io.EOF
	}
	n, err := u.file.Read(p[:min(int64(len(p)), u.size-u.n)])
	u.n += int64(n)
	if err == io.EOF {
		if err = nil; u.n < u.size {
			err = errShrunk
		}
	}
	if u.err = err; err != nil {
		return n, err
	}
	if u.n == u.size {
		u.stall.Reset(uploadPatience)
	} else {
		u.stall.Reset(uploadIdle)
	}
	if u.progress != nil {
		u.progress(u.n)
	}
	return n, nil
}
