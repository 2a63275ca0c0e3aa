package cluster

import (
	"encoding/binary"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"trivet/jepsen-lite/nemesis"
	"trivet/trivetpb"
)

// helloTimeout bounds the first bytes of a stream.
const helloTimeout = 5 * time.Second

// forward carries one connection to the member to, which listens on peer.
func (l *links) forward(in net.Conn, to, peer string) {
	defer l.release(in)
	in.SetReadDeadline(time.Now().Add(helloTimeout))
	head, from, err := readHello(in)
	if err != nil {
		return
	}
	in.SetReadDeadline(time.Time{})
	out, err := net.DialTimeout("tcp", peer, time.Second)
	if err != nil {
		// The member is down. The dialler gets a reset, as from its kernel, if its
		// packets would reach it at all and the answer would come back.
		if l.wait(from, to) && l.wait(to, from) {
			if tcp, ok := in.(*net.TCPConn); ok {
				_ = tcp.SetLinger(0)
			}
		}
		return
	}
	if !l.track(out, to) {
		out.Close()
		return
	}
	defer l.release(out)

	var wg sync.WaitGroup
	wg.Go(func() { l.carry(from, to, head, in, out) })
	wg.Go(func() { l.carry(to, from, nil, out, in) })
	wg.Wait()
}

// readHello reads the opening of a stream between members (a byte for its kind,
// the length in two, a Hello) and returns it as it came, with who dials.
func readHello(c net.Conn) (head []byte, from string, err error) {
	head = make([]byte, 3)
	if _, err := io.ReadFull(c, head); err != nil {
		return nil, "", err
	}
	body := make([]byte, binary.BigEndian.Uint16(head[1:]))
	if _, err := io.ReadFull(c, body); err != nil {
		return nil, "", err
	}
	var hello trivetpb.Hello
	if err := proto.Unmarshal(body, &hello); err != nil {
		return nil, "", err
	}
	return append(head, body...), hello.From, nil
}

// wait waits while the pair is cut; false where the links are closed.
func (l *links) wait(from, to string) bool {
	for {
		rule, changed := l.rule(from, to)
		l.mu.Lock()
		closed := l.closed
		l.mu.Unlock()
		if closed {
			return false
		}
		if !rule.Cut {
			return true
		}
		<-changed
	}
}

// piece is some bytes on their way, and when they may arrive.
type piece struct {
	b  []byte
	at time.Time
}

// arrival waits for a time, or until the link is good again: what a slow one has
// piled up does not go on being late.
func (l *links) arrival(from, to string, at time.Time) {
	for d := time.Until(at); d > 0; d = time.Until(at) {
		rule, changed := l.rule(from, to)
		if rule == (nemesis.Rule{}) {
			return
		}
		select {
		case <-time.After(d):
		case <-changed:
		}
	}
}

// retransmit is about what TCP takes to send a lost segment again on a LAN.
const retransmit = 200 * time.Millisecond

// carry carries one direction: head first, then what src sends. It ends with
// either connection, and ends both, but no sooner than the rules let the end
// arrive: a member that died in silence behind a cut is not heard to die.
func (l *links) carry(from, to string, head []byte, src, dst net.Conn) {
	// What is on its way: a pipe is as long as its delay, and holds what comes.
	// Bounded, so that a sender into a cut is held back as by a full window.
	pieces := make(chan piece, 256)
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(pieces)
		var last time.Time
		arrives := func(n int) time.Time {
			rule, _ := l.rule(from, to)
			now := time.Now()
			if rule == (nemesis.Rule{}) {
				last = now // what is before it is let go too, see arrival
				return now
			}
			at := now.Add(rule.Delay)
			if rule.Jitter > 0 {
				at = at.Add(time.Duration(rand.Int64N(int64(rule.Jitter))))
			}
			if rule.Loss > 0 && rand.Float64() < rule.Loss {
				at = at.Add(retransmit)
			}
			if at.Before(last) {
				at = last // order is kept, so what is behind a lost one waits with it
			}
			if rule.BytesPerSecond > 0 {
				at = at.Add(time.Duration(n) * time.Second / time.Duration(rule.BytesPerSecond))
			}
			last = at
			return at
		}
		if len(head) > 0 {
			pieces <- piece{head, arrives(len(head))}
		}
		for {
			b := make([]byte, 16<<10)
			n, err := src.Read(b)
			if n > 0 {
				pieces <- piece{b[:n], arrives(n)}
			}
			if err != nil {
				return
			}
		}
	})
	broken := false
	for p := range pieces {
		if broken {
			continue // so that the reader ends
		}
		l.arrival(from, to, p.at)
		if !l.wait(from, to) {
			broken = true
			src.Close()
			continue
		}
		if _, err := dst.Write(p.b); err != nil {
			// The other end is gone, which is told by what comes back from there.
			broken = true
			l.wait(to, from)
			src.Close()
		}
	}
	wg.Wait()
	if l.wait(from, to) {
		dst.Close()
	}
	src.Close()
}
