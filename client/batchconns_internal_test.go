package client

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// scripted is a server that answers the requests of each connection with the texts of
// a script, one after the other, and closes the connection behind the last.
type scripted struct {
	address string
	conns   atomic.Int32
	// requests has the body of each request.
	requests chan string
}

func serveScript(t *testing.T, scripts ...[]string) *scripted {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { ln.Close() })
	s := &scripted{address: ln.Addr().String(), requests: make(chan string, 100)}
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			n := int(s.conns.Add(1)) - 1
			go s.answer(conn, scripts[min(n, len(scripts)-1)])
		}
	}()
	return s
}

func (s *scripted) answer(conn net.Conn, script []string) {
	defer conn.Close()
	r := bufio.NewReader(conn)
	for _, text := range script {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		body, _ := io.ReadAll(req.Body)
		s.requests <- string(body)
		if _, err := io.WriteString(conn, text); err != nil {
			return
		}
	}
	// Closed when the script is over, and not before the client has it all.
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.CloseWrite()
		_, _ = io.Copy(io.Discard, r)
	}
}

const fine = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine"

// batchConnsFor are the connections of a client with that bound.
func batchConnsFor(t *testing.T, cfg Config) *batchConns {
	cfg, _, err := cfg.withDefaults()
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	transport := newTransport(ctx, cfg)
	b := newBatchConns(cfg, transport)
	t.Cleanup(func() {
		b.close()
		transport.CloseIdleConnections()
		cancel()
		require.Empty(t, b.count, "all connections are accounted for")
	})
	return b
}

func post(ctx context.Context, where, body string) *http.Request {
	u, err := url.Parse(where)
	if err != nil {
		panic(err)
	}
	req := &http.Request{Method: http.MethodPost, URL: u, Host: u.Host, Header: http.Header{}, ContentLength: int64(len(body)), Body: newBody([]byte(body))}
	return req.WithContext(ctx)
}

// exchangeOn makes a request and reads the whole answer.
func exchangeOn(b *batchConns, req *http.Request) (string, error) {
	resp, err := b.RoundTrip(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return string(body), err
}

// One connection carries one request after the other, and two at a time take two.
func TestABatchConnIsUsedAgain(t *testing.T) {
	s := serveScript(t, []string{fine, fine, fine, fine})
	b := batchConnsFor(t, Config{})
	for _, text := range []string{"one", "two", strings.Repeat("large", 1<<20)} {
		answer, err := exchangeOn(b, post(t.Context(), "http://"+s.address+"/v1/batch", text))
		require.NoError(t, err)
		require.Equal(t, "fine", answer)
		require.Equal(t, text, <-s.requests)
	}
	require.EqualValues(t, 1, s.conns.Load())
	under, err := b.RoundTrip(post(t.Context(), "http://"+s.address+"/", ""))
	require.NoError(t, err)
	_, err = exchangeOn(b, post(t.Context(), "http://"+s.address+"/", ""))
	require.NoError(t, err)
	require.EqualValues(t, 2, s.conns.Load())
	require.NoError(t, under.Body.Close())
}

// A connection that the other end closed while it was idle is left alone: the request goes over
// another one, and nobody learns of it.
func TestABatchConnThatWasClosed(t *testing.T) {
	s := serveScript(t, []string{fine})
	b := batchConnsFor(t, Config{})
	for i, want := range []int32{1, 2, 3} {
		answer, err := exchangeOn(b, post(t.Context(), "http://"+s.address+"/", "x"))
		require.NoError(t, err, i)
		require.Equal(t, "fine", answer)
		require.Equal(t, want, s.conns.Load(), "asked on a connection that is closed")
		for key := range b.idle {
			for _, c := range b.idle[key] { // the end has come by then
				_ = c.raw.SetReadDeadline(time.Now().Add(time.Minute))
				sys, err := c.raw.(*countedConn).Conn.(*net.TCPConn).SyscallConn()
				require.NoError(t, err)
				require.NoError(t, sys.Read(func(uintptr) bool { return stale(c.raw) }))
				_ = c.raw.SetReadDeadline(time.Time{})
				c.used = c.used.Add(-staleAfter)
			}
		}
	}
}

// Nor is one used again whose other end is about to close it, has said what nobody asked
// for, or still has something to say.
func TestABatchConnThatIsNotClean(t *testing.T) {
	for name, text := range map[string]string{
		"to be closed": "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nfine",
		"more":         fine + "HTTP/1.1 200 OK\r\n",
		"the rest":     "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nfine",
	} {
		t.Run(name, func(t *testing.T) {
			s := serveScript(t, []string{text, fine}, []string{fine})
			b := batchConnsFor(t, Config{})
			resp, err := b.RoundTrip(post(t.Context(), "http://"+s.address+"/", "x"))
			require.NoError(t, err)
			_, err = io.ReadFull(resp.Body, make([]byte, 4))
			require.NoError(t, err)
			if name != "the rest" {
				_, err = resp.Body.Read(make([]byte, 1))
				require.Equal(t, io.EOF, err)
			}
			require.NoError(t, resp.Body.Close())
			answer, err := exchangeOn(b, post(t.Context(), "http://"+s.address+"/", "x"))
			require.NoError(t, err)
			require.Equal(t, "fine", answer)
			require.EqualValues(t, 2, s.conns.Load())
		})
	}
}

// One that goes on in another protocol is none of ours any more.
func TestABatchConnThatSwitches(t *testing.T) {
	s := serveScript(t, []string{"HTTP/1.1 101 Switching Protocols\r\n\r\n", fine}, []string{fine})
	b := batchConnsFor(t, Config{})
	_, err := exchangeOn(b, post(t.Context(), "http://"+s.address+"/", "x"))
	require.NoError(t, err)
	_, err = exchangeOn(b, post(t.Context(), "http://"+s.address+"/", "x"))
	require.NoError(t, err)
	require.EqualValues(t, 2, s.conns.Load())
}

// What is no answer, or not all of one, is an error, and its connection is not used again.
func TestBatchConnsRefuseWhatIsNoAnswer(t *testing.T) {
	for name, text := range map[string]string{
		"nothing":          "",
		"no HTTP":          "SSH-2.0-OpenSSH_9.2\r\n\r\n",
		"an endless line":  "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 2*maxAnswerHeader),
		"many interim":     strings.Repeat("HTTP/1.1 102 Processing\r\n\r\n", maxInterim+1) + fine,
		"a part":           "HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\npart",
		"no end of chunks": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			s := serveScript(t, []string{text}, []string{fine})
			b := batchConnsFor(t, Config{})
			_, err := exchangeOn(b, post(t.Context(), "http://"+s.address+"/", "x"))
			require.Error(t, err)
			require.Equal(t, name == "an endless line", errors.Is(err, errHeaderTooLarge), err)
			answer, err := exchangeOn(b, post(t.Context(), "http://"+s.address+"/", "x"))
			require.NoError(t, err)
			require.Equal(t, "fine", answer)
			require.EqualValues(t, 2, s.conns.Load())
		})
	}
	s := serveScript(t, []string{"HTTP/1.1 102 Processing\r\n\r\n" + fine})
	answer, err := exchangeOn(batchConnsFor(t, Config{}), post(t.Context(), "http://"+s.address+"/", "x"))
	require.NoError(t, err)
	require.Equal(t, "fine", answer)
}

// The context ends an attempt wherever it is, with its cause.
func TestTheContextEndsABatchConn(t *testing.T) {
	mine := errors.New("mine")
	for name, text := range map[string]string{
		"before the answer": "",
		"in the header":     "HTTP/1.1 200 OK\r\n",
		"in the body":       "HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\npart",
	} {
		t.Run(name, func(t *testing.T) {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
			defer ln.Close()
			b := batchConnsFor(t, Config{})
			ctx, cancel := context.WithCancelCause(t.Context())
			go func() {
				conn, err := ln.Accept()
				if err != nil {
					return
				}
				defer conn.Close()
				_, _ = http.ReadRequest(bufio.NewReader(conn))
				_, _ = io.WriteString(conn, text)
				cancel(mine)
				_, _ = io.Copy(io.Discard, conn)
			}()
			_, err = exchangeOn(b, post(ctx, "http://"+ln.Addr().String()+"/", "x"))
			require.ErrorIs(t, err, mine)
			require.Empty(t, b.idle)
		})
	}
}

// A context that ends as the answer has been read does not spoil the connection for the
// next request.
func TestAContextThatEndsLate(t *testing.T) {
	s := serveScript(t, []string{fine, fine})
	b := batchConnsFor(t, Config{})
	ctx, cancel := context.WithCancel(t.Context())
	_, err := exchangeOn(b, post(ctx, "http://"+s.address+"/", "x"))
	require.NoError(t, err)
	cancel()
	_, err = exchangeOn(b, post(t.Context(), "http://"+s.address+"/", "x"))
	require.NoError(t, err)
	require.EqualValues(t, 1, s.conns.Load())
}

// Together with what goes through the Transport there are no more connections than
// Config allows, and a batch that finds none of its own is not lost.
func TestBatchConnsHaveABound(t *testing.T) {
	for most, own := range map[int]int{1: 0, 2: 1, 6: 3} {
		s := serveScript(t, []string{fine, fine})
		b := batchConnsFor(t, Config{MaxConnsPerNode: most})
		require.Equal(t, most-own, b.others.(*http.Transport).MaxConnsPerHost)
		var under []*http.Response
		for range most {
			resp, err := b.RoundTrip(post(t.Context(), "http://"+s.address+"/", "x"))
			require.NoError(t, err)
			under = append(under, resp)
		}
		require.EqualValues(t, most, s.conns.Load())
		require.Equal(t, own, b.count["http://"+s.address])
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			for range most {
				<-s.requests
			}
			cancel() // while one more waits, or before
		}()
		_, err := b.RoundTrip(post(ctx, "http://"+s.address+"/", "x"))
		require.ErrorIs(t, err, context.Canceled)
		require.EqualValues(t, most, s.conns.Load())
		for _, resp := range under {
			_, err := io.Copy(io.Discard, resp.Body)
			require.NoError(t, err)
			require.NoError(t, resp.Body.Close())
		}
	}
}

// Where a call was withdrawn by the time that its batch has a connection, nothing is sent,
// and that is known: the others of the batch go without it.
func TestABatchConnThatIsRefused(t *testing.T) {
	s := serveScript(t, []string{fine, fine})
	b := batchConnsFor(t, Config{})
	_, err := exchangeOn(b, post(t.Context(), "http://"+s.address+"/", "first"))
	require.NoError(t, err)
	for range 2 { // over a connection that is kept, and over a new one
		watched := &sending{onConn: func() bool { return false }}
		_, err = exchangeOn(b, post(watched.watch(t.Context()), "http://"+s.address+"/", "withdrawn"))
		require.Error(t, err)
		require.True(t, watched.refused())
		require.True(t, watched.nothingSent())
	}
	agreed := &sending{onConn: func() bool { return true }}
	_, err = exchangeOn(b, post(agreed.watch(t.Context()), "http://"+s.address+"/", "second"))
	require.NoError(t, err)
	require.False(t, agreed.nothingSent())
	require.Equal(t, []string{"first", "second"}, []string{<-s.requests, <-s.requests})
}

// The ports are numbers, as whoever makes the connections gets them from net/http.
func TestBatchConnsDialPorts(t *testing.T) {
	for where, want := range map[string]string{
		"http://a.test": "a.test:80", "https://a.test": "a.test:443", "http://[::1]": "[::1]:80", "http://[::1]:7071": "[::1]:7071", "https://a.test:8443": "a.test:8443",
	} {
		var dialled string
		b := batchConnsFor(t, Config{DialContext: func(_ context.Context, _, address string) (net.Conn, error) {
			dialled = address
			return nil, errors.New("not today")
		}})
		_, err := exchangeOn(b, post(t.Context(), where+"/", "x"))
		require.ErrorContains(t, err, "not today")
		require.Equal(t, want, dialled)
	}
}

// What is idle for long is closed, whether the client is used or not.
func TestIdleBatchConnsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ended atomic.Int32
		b := batchConnsFor(t, Config{DialContext: func(context.Context, string, string) (net.Conn, error) {
			conn, other := net.Pipe()
			go func() {
				s := &scripted{requests: make(chan string, 100)}
				s.answer(other, []string{fine, fine, fine, fine})
				ended.Add(1)
			}()
			return conn, nil
		}})
		use := func() {
			_, err := exchangeOn(b, post(t.Context(), "http://a.test/", "x"))
			require.NoError(t, err)
		}
		use()
		time.Sleep(idleBatchConn / 2)
		use()
		time.Sleep(idleBatchConn - time.Second)
		synctest.Wait()
		require.Zero(t, ended.Load())
		time.Sleep(idleBatchConn/2 + 2*time.Second)
		synctest.Wait()
		require.EqualValues(t, 1, ended.Load())
		require.Empty(t, b.count)
		use()
		time.Sleep(2 * idleBatchConn)
		synctest.Wait()
		require.EqualValues(t, 2, ended.Load())
	})
}

// Over TLS the certificate is checked, for the host that was asked for.
func TestBatchConnsOverTLS(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(w, r.Body)
	}))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	defer server.Close()
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())

	b := batchConnsFor(t, Config{TLS: &tls.Config{RootCAs: roots}})
	for range 2 {
		answer, err := exchangeOn(b, post(t.Context(), server.URL, "hello"))
		require.NoError(t, err)
		require.Equal(t, "hello", answer)
	}
	require.Equal(t, 1, b.count[server.URL])

	for name, cfg := range map[string]*tls.Config{
		"nobody vouches for it": nil,
		"of another host":       {RootCAs: roots, ServerName: "other.test"},
	} {
		_, err := exchangeOn(batchConnsFor(t, Config{TLS: cfg}), post(t.Context(), server.URL, "x"))
		require.Error(t, err, name)
		require.True(t, isMisconfigured(err), name)
	}
}

// A long answer is read into memory that its connection keeps, up to a bound.
func TestABatchConnKeepsTheBufferOfItsAnswers(t *testing.T) {
	answers := []string{"fine", strings.Repeat("l", longAnswer+1), strings.Repeat("m", keptAnswer/2), strings.Repeat("h", 5*keptAnswer), "fine"}
	var script []string
	for _, a := range answers {
		script = append(script, fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(a), a))
	}
	s := serveScript(t, script)
	b := batchConnsFor(t, Config{})
	var caps []int
	for _, want := range answers {
		resp, err := b.RoundTrip(post(t.Context(), "http://"+s.address+"/v1/batch", ""))
		require.NoError(t, err)
		own := resp.Body.(*batchAnswer)
		buf, conn := own.buffer(resp.ContentLength), own.c
		body, err := readAtMost(buf, resp.Body, resp.ContentLength, 1<<30)
		require.NoError(t, err)
		require.Equal(t, want, string(body))
		require.NoError(t, resp.Body.Close())
		if conn.in == nil {
			caps = append(caps, 0)
		} else {
			require.Same(t, buf, conn.in)
			require.Zero(t, buf.Len())
			caps = append(caps, buf.Cap())
		}
	}
	require.EqualValues(t, 1, s.conns.Load())
	require.GreaterOrEqual(t, caps[1], keptAnswer, "all at once")
	require.Equal(t, caps[1], caps[2], "and kept")
	require.Zero(t, caps[3], "but not what is longer")
}

// Of many connections whose answers were long some keep the memory, and the others leave
// it to whoever needs it. One that is closed makes room for another.
func TestFewBatchConnsKeepLongBuffers(t *testing.T) {
	long := fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", longAnswer+1, strings.Repeat("l", longAnswer+1))
	s := serveScript(t, []string{long, long, fine})
	b := batchConnsFor(t, Config{})
	kept := func(at int) (bytes int) {
		var open []*http.Response
		for range at {
			resp, err := b.RoundTrip(post(t.Context(), "http://"+s.address+"/v1/batch", ""))
			require.NoError(t, err)
			<-s.requests
			open = append(open, resp)
		}
		for _, resp := range open {
			_, err := readAtMost(resp.Body.(*batchAnswer).buffer(resp.ContentLength), resp.Body, resp.ContentLength, 1<<30)
			require.NoError(t, err)
			require.NoError(t, resp.Body.Close())
		}
		for _, conns := range b.idle {
			require.Len(t, conns, at)
			for _, c := range conns {
				if c.in != nil {
					bytes += c.in.Cap()
				}
			}
		}
		return bytes
	}
	const many = 2 * keptAnswers
	for range 2 {
		bytes := kept(many)
		require.GreaterOrEqual(t, bytes, keptAnswers*keptAnswer)
		require.LessOrEqual(t, bytes, keptAnswers*2*keptAnswer+many*2*longAnswer)
		require.EqualValues(t, keptAnswers, b.longs.Load())
	}
	b.closeIdle()
	require.Zero(t, b.longs.Load())
	require.GreaterOrEqual(t, kept(1), keptAnswer)
}
