package raftnode

import (
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// raftLog is raft's own log (an hclog.Logger) written to a slog.Logger, one
// level lower than raft sees it: what raft calls information is of interest to
// who debugs raft, and what it calls an error (a peer that cannot be reached)
// is daily life in a cluster.
type raftLog struct {
	to *slog.Logger
	// quiet, once set, makes everything debugging: raft complains of every
	// connection that a stopping node closes.
	quiet *atomic.Bool
	// said is when each warning was written last: a member that is away would
	// otherwise fill the log with ten lines a second.
	said *sync.Map // of warning and subject to time.Time
	name string
	args []any
}

func newRaftLog(to *slog.Logger, quiet *atomic.Bool) hclog.Logger {
	return &raftLog{to: to.With("part", "raft"), quiet: quiet, said: new(sync.Map)}
}

func (l *raftLog) level(level hclog.Level) slog.Level {
	if l.quiet.Load() {
		return slog.LevelDebug
	}
	switch level {
	case hclog.Error:
		return slog.LevelWarn
	case hclog.Warn:
		return slog.LevelInfo
	case hclog.Info:
		return slog.LevelDebug
	default:
		return slog.LevelDebug - 4
	}
}

func (l *raftLog) Log(level hclog.Level, msg string, args ...any) {
	to := l.level(level)
	if to == slog.LevelWarn && l.repeats(msg, args) {
		to = slog.LevelDebug
	}
	if !l.to.Enabled(context.Background(), to) {
		return
	}
	for i, a := range args {
		args[i] = withoutFolders(a)
		if f, ok := a.(hclog.Format); ok { // hclog.Fmt: a format and its arguments
			for j := range f {
				f[j] = withoutFolders(f[j])
			}
			args[i] = fmt.Sprintf(f[0].(string), f[1:]...)
		}
		if name, ok := a.(string); ok && i%2 == 0 && taken(name) {
			args[i] = "raft_" + name
		}
	}
	l.to.Log(context.Background(), to, msg, args...)
}

// withoutFolders is what of an argument is of use to a reader of the log.
func withoutFolders(a any) any {
	switch a := a.(type) {
	case raft.ServerAddress:
		peer, _ := splitAddress(a)
		return peer
	case raft.Server:
		return fmt.Sprintf("%s at %s (%s)", a.ID, peerOf(a), a.Suffrage)
	case []raft.Server:
		var texts []string
		for _, s := range a {
			texts = append(texts, withoutFolders(s).(string))
		}
		return texts
	}
	return a
}

// taken says that a line has something else under that name already: two fields
// of one name in a JSON document are read as either.
func taken(name string) bool {
	switch name {
	case slog.TimeKey, slog.LevelKey, slog.MessageKey, "node", "part":
		return true
	}
	return false
}

// warnEvery is how often one warning about one subject is written.
const warnEvery = 5 * time.Second

// repeats reports whether a warning was written a moment ago. Its subject is its
// first argument: the peer, as raft writes them. Warnings and members are few, so
// what is kept is.
func (l *raftLog) repeats(msg string, args []any) bool {
	if len(args) > 1 {
		msg = fmt.Sprint(msg, args[1])
	}
	now := time.Now()
	if last, ok := l.said.Load(msg); ok && now.Sub(last.(time.Time)) < warnEvery {
		return true
	}
	l.said.Store(msg, now)
	return false
}

func (l *raftLog) Trace(msg string, args ...any) { l.Log(hclog.Trace, msg, args...) }
func (l *raftLog) Debug(msg string, args ...any) { l.Log(hclog.Debug, msg, args...) }
func (l *raftLog) Info(msg string, args ...any)  { l.Log(hclog.Info, msg, args...) }
func (l *raftLog) Warn(msg string, args ...any)  { l.Log(hclog.Warn, msg, args...) }
func (l *raftLog) Error(msg string, args ...any) { l.Log(hclog.Error, msg, args...) }

func (l *raftLog) enabled(level hclog.Level) bool {
	return l.to.Enabled(context.Background(), l.level(level))
}

func (l *raftLog) IsTrace() bool { return l.enabled(hclog.Trace) }
func (l *raftLog) IsDebug() bool { return l.enabled(hclog.Debug) }
func (l *raftLog) IsInfo() bool  { return l.enabled(hclog.Info) }
func (l *raftLog) IsWarn() bool  { return l.enabled(hclog.Warn) }
func (l *raftLog) IsError() bool { return l.enabled(hclog.Error) }

func (l *raftLog) ImpliedArgs() []any { return l.args }

func (l *raftLog) With(args ...any) hclog.Logger {
	return &raftLog{to: l.to.With(args...), quiet: l.quiet, said: l.said, name: l.name, args: append(l.args[:len(l.args):len(l.args)], args...)}
}

func (l *raftLog) Name() string { return l.name }

func (l *raftLog) Named(name string) hclog.Logger {
	if l.name != "" {
		name = l.name + "." + name
	}
	return l.ResetNamed(name)
}

func (l *raftLog) ResetNamed(name string) hclog.Logger {
	return &raftLog{to: l.to, quiet: l.quiet, said: l.said, name: name, args: l.args}
}

// SetLevel does nothing: the slog.Logger decides.
func (l *raftLog) SetLevel(hclog.Level) {}

func (l *raftLog) GetLevel() hclog.Level {
	for _, level := range []hclog.Level{hclog.Trace, hclog.Debug, hclog.Info, hclog.Warn, hclog.Error} {
		if l.enabled(level) {
			return level
		}
	}
	return hclog.Off
}

func (l *raftLog) StandardLogger(*hclog.StandardLoggerOptions) *log.Logger {
	return slog.NewLogLogger(l.to.Handler(), slog.LevelInfo)
}

func (l *raftLog) StandardWriter(*hclog.StandardLoggerOptions) io.Writer {
	return l.StandardLogger(nil).Writer()
}
