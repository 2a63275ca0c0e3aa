package httpapi

import (
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"trivet/store"
	"trivet/trivetpb"
)

// Bounds that the API itself fixes; they are no settings, so that a request
// means the same on every node.
const (
	// maxKeyBytes is the longest key; a bound of a range may have one byte more.
	maxKeyBytes = store.MaxKeyBytes
	// maxBatchOps is the most operations of one batch.
	maxBatchOps = 4096
	// maxTxnOps is the most operations of either branch of a txn, and the most
	// comparisons.
	maxTxnOps = store.DefaultMaxTxnOps
	// maxElements is the most operations, comparisons and guards that one document
	// may hold in all, those inside txns included. An operation of a few bytes takes
	// a hundred and more in memory, so a bound on the body alone is too little.
	maxElements = 1 << 16

	defaultLimit = store.DefaultRangeItems
	maxLimit     = store.MaxRangeItems

	defaultTimeout = 5 * time.Second
	maxTimeout     = 60 * time.Second

	// maxNumber bounds every number in JSON but a counter's: larger ones are
	// not the same in every language.
	maxNumber = 1<<53 - 1

	// HardMaxRestoreBytes is the most that Config.MaxRestoreBytes may be: what is
	// being restored is in the memory of every member.
	HardMaxRestoreBytes = store.MaxUploadBytes

	// pageBytes is where a page of a range ends, however many items the limit
	// would still take: keys and values, before they are written as JSON. A page
	// always holds an item, if there is one.
	pageBytes = 4 << 20
	// answerBytes bounds what the reads of one batch return together; a read
	// that would go past it fails alone, as too_large.
	answerBytes = 64 << 20
	// maxStreams is the most requests that one connection may have under way, over
	// HTTP/2. Watches and requests have bounds of their own; this one keeps a single
	// caller from having the connection's goroutine work for nobody else, and who
	// needs more opens another.
	maxStreams = 4096
	// spillBytes is how much of an answer is gathered before it goes out: what
	// fits has a Content-Length, what does not is sent in chunks.
	spillBytes = 64 << 10
	// listsBytes is that of a batch with parts of ranges, which one caller reads for many
	// of its own: it is as good as sixteen parts of a hundred items go out with one
	// write, as each piece of an answer wakes who reads it.
	listsBytes = 512 << 10
)

// Config is what can be set about the door. The zero value is ready to use.
type Config struct {
	// MaxValueBytes is the longest value. Default 1 MiB, at most
	// store.HardMaxValueBytes.
	MaxValueBytes int
	// MaxDocumentBytes is the longest body of a txn or batch. Default 16 MiB.
	MaxDocumentBytes int
	// MaxHeldBytes bounds the bodies that are held at one time, all requests
	// together; past it a request is refused as overloaded. Default 256 MiB,
	// and never below MaxDocumentBytes and MaxValueBytes.
	MaxHeldBytes int64
	// MaxRestoreBytes is the largest snapshot that is restored. Default 4 GiB,
	// which is also the most.
	MaxRestoreBytes int64
	// MaxHeaderBytes is the longest request line and headers; it leaves room
	// for two keys of full length in the query. Default 64 KiB, at least 32 KiB.
	MaxHeaderBytes int
	// MaxRequests is the most requests under way at one time, health checks
	// aside; past it a request is refused as overloaded. Default 8,192.
	MaxRequests int
	// MaxWatchers is the most watches open at one time; they do not count as
	// requests under way. Past it a watch is refused as overloaded. Default
	// 16,384.
	MaxWatchers int
	// MaxConns is the most connections that are served; over HTTP/1.1 each watch
	// has one. Up to an eighth more are taken only to be told that the node is
	// overloaded; any beyond those wait in the kernel's queue. Default 32,768.
	MaxConns int
	// MaxLockWaits is the most requests that wait for a lock at one time. They
	// do not count as under way; past it a request that would wait is refused as
	// overloaded. Default 4,096.
	MaxLockWaits int
	// HeaderTimeout is how long a request's headers may take. Default 10 s.
	HeaderTimeout time.Duration
	// BodyTimeout is how long a request's body may take. Default 30 s.
	BodyTimeout time.Duration
	// WriteTimeout is how long the caller may take to accept an answer, and
	// each further chunk of a long one. Default 30 s.
	WriteTimeout time.Duration
	// IdleTimeout is how long a connection may wait for its next request.
	// Default 2 minutes.
	IdleTimeout time.Duration
	// StreamTimeout is how long one streamed range may take in all: while it
	// runs it holds on to an old state of the store. The same goes for the
	// initial items of a watch, not for the watch. Default 10 minutes.
	StreamTimeout time.Duration
	// ProgressInterval is how often a watch says how far it has come. Default
	// 9 s: the API promises 10, and a frame takes its time to arrive.
	ProgressInterval time.Duration
	// Logger gets what the caller is not told: panics and failures of the node.
	// Default slog.Default().
	Logger *slog.Logger
}

// withDefaults fills in the zero values and refuses what cannot be meant.
func (c Config) withDefaults() (Config, error) {
	for _, f := range []struct {
		name  string
		value *int
		def   int
		least int
	}{
		{"MaxValueBytes", &c.MaxValueBytes, 1 << 20, 1},
		{"MaxDocumentBytes", &c.MaxDocumentBytes, 16 << 20, 1},
		{"MaxHeaderBytes", &c.MaxHeaderBytes, 64 << 10, 32 << 10},
		{"MaxRequests", &c.MaxRequests, 8192, 1},
		{"MaxWatchers", &c.MaxWatchers, 16384, 1},
		{"MaxConns", &c.MaxConns, 32768, 1},
		{"MaxLockWaits", &c.MaxLockWaits, 4096, 1},
	} {
		if *f.value == 0 {
			*f.value = f.def
		}
		if *f.value < f.least {
			return c, fmt.Errorf("httpapi: %s is %d, the least is %d", f.name, *f.value, f.least)
		}
	}
	for _, f := range []struct {
		name  string
		value *time.Duration
		def   time.Duration
	}{
		{"HeaderTimeout", &c.HeaderTimeout, 10 * time.Second},
		{"BodyTimeout", &c.BodyTimeout, 30 * time.Second},
		{"WriteTimeout", &c.WriteTimeout, 30 * time.Second},
		{"IdleTimeout", &c.IdleTimeout, 2 * time.Minute},
		{"StreamTimeout", &c.StreamTimeout, 10 * time.Minute},
		{"ProgressInterval", &c.ProgressInterval, 9 * time.Second},
	} {
		if *f.value == 0 {
			*f.value = f.def
		}
		if *f.value < 0 {
			return c, fmt.Errorf("httpapi: %s is negative", f.name)
		}
	}
	if c.MaxValueBytes > store.HardMaxValueBytes {
		return c, fmt.Errorf("httpapi: MaxValueBytes is %d, the most is %d", c.MaxValueBytes, store.HardMaxValueBytes)
	}
	if c.MaxHeldBytes == 0 {
		c.MaxHeldBytes = max(256<<20, int64(c.MaxDocumentBytes), int64(c.MaxValueBytes))
	}
	if c.MaxHeldBytes < max(int64(c.MaxDocumentBytes), int64(c.MaxValueBytes)) {
		return c, fmt.Errorf("httpapi: MaxHeldBytes is %d, less than one body may have", c.MaxHeldBytes)
	}
	if c.MaxRestoreBytes == 0 {
		c.MaxRestoreBytes = HardMaxRestoreBytes
	}
	if c.MaxRestoreBytes < 1 || c.MaxRestoreBytes > HardMaxRestoreBytes {
		return c, fmt.Errorf("httpapi: MaxRestoreBytes is %d, it may be 1 to %d", c.MaxRestoreBytes, int64(HardMaxRestoreBytes))
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c, nil
}

// storeLimits is what store.Check holds an operation to.
func (c Config) storeLimits() store.Limits {
	return store.Limits{MaxValueBytes: c.MaxValueBytes, MaxTxnOps: maxTxnOps}
}

// gauge counts what is held of something bounded. Taking never waits: who does
// not fit is told so at once, because a queue here would only hide one that is
// full elsewhere.
type gauge struct {
	held atomic.Int64
	most int64
}

// take takes n, or nothing where they do not fit.
func (g *gauge) take(n int64) bool {
	if g.held.Add(n) > g.most {
		g.held.Add(-n)
		return false
	}
	return true
}

func (g *gauge) give(n int64) { g.held.Add(-n) }

// overloaded refuses the request for there is too much of what.
func (c *call) overloaded(what refusal, detail string) *trivetpb.Problem {
	c.srv.metrics.http.refused.WithLabelValues(string(what)).Inc()
	return &trivetpb.Problem{Code: trivetpb.Code_OVERLOADED, Detail: detail}
}
