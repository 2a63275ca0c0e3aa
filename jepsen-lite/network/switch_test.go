package network

import (
	"io"
	"math/rand/v2"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"trivet/jepsen-lite/nemesis"
)

// wire is a device: what the kernel sends and what it gets.
type wire struct {
	sends, gets chan []byte
	closed      chan struct{}
}

func (w *wire) Read(b []byte) (int, error) {
	select {
	case p := <-w.sends:
		return copy(b, p), nil
	case <-w.closed:
		return 0, io.EOF
	}
}

func (w *wire) Write(b []byte) (int, error) { w.gets <- b; return len(b), nil }
func (w *wire) Close() error                { close(w.closed); return nil }

var ids = []string{Clients, "n1", "n2", "n3"}

func address(id string) netip.Addr {
	for i, other := range ids {
		if id == other {
			return netip.AddrFrom4([4]byte{198, 18, 0, byte(i + 1)})
		}
	}
	panic(id)
}

func withSwitch(t *testing.T, f func(s *Switch, wires map[string]*wire)) {
	synctest.Test(t, func(t *testing.T) {
		wires := map[string]*wire{}
		var ports []*Port
		for _, id := range ids {
			wires[id] = &wire{make(chan []byte, 100), make(chan []byte, 10000), make(chan struct{})}
			ports = append(ports, &Port{id, address(id), wires[id]})
		}
		s := New(ports, 7072)
		f(s, wires)
		s.Close()
	})
}

// segment is a TCP packet; its content is n bytes.
func segment(from, to string, source, destination uint16, flags byte, n int) []byte {
	b := make([]byte, 40+n)
	b[0], b[9] = 0x45, 6
	a, z := address(from).As4(), address(to).As4()
	copy(b[12:], a[:])
	copy(b[16:], z[:])
	b[20], b[21], b[22], b[23] = byte(source>>8), byte(source), byte(destination>>8), byte(destination)
	copy(b[24:], []byte{0, 0, 1, 0, 0, 0, 2, 0}) // seq 256, ack 512
	b[32], b[33] = 5<<4, flags
	return b
}

// arrived are those that got a packet which was sent by each to each.
func arrived(wires map[string]*wire) map[string]bool {
	for _, from := range ids {
		for _, to := range ids {
			wires[from].sends <- segment(from, to, 1000, 7072, tcpACK, 1)
		}
	}
	synctest.Wait()
	got := map[string]bool{}
	for _, to := range ids {
		for len(wires[to].gets) > 0 {
			b := <-wires[to].gets
			for _, from := range ids {
				a := address(from).As4()
				if string(a[:]) == string(b[12:16]) {
					got[from+" to "+to] = true
				}
			}
		}
	}
	return got
}

func TestRulesAreByDirectedPair(t *testing.T) {
	withSwitch(t, func(s *Switch, wires map[string]*wire) {
		require.Len(t, arrived(wires), 12, "each to each other")
		s.Set(func(from, to string) nemesis.Rule { return nemesis.Rule{Cut: from == "n1" && to == "n2"} })
		got := arrived(wires)
		require.Len(t, got, 11)
		require.NotContains(t, got, "n1 to n2")
		require.Contains(t, got, "n2 to n1")

		s.Set(func(string, string) nemesis.Rule { return nemesis.Rule{Cut: true} })
		require.Len(t, arrived(wires), 6, "those of clients")
		s.SetClients(func(member string, asked bool) nemesis.Rule {
			return nemesis.Rule{Cut: member == "n3" && !asked}
		})
		got = arrived(wires)
		require.Len(t, got, 5)
		require.Contains(t, got, "clients to n3")

		s.Set(func(string, string) nemesis.Rule { return nemesis.Rule{} })
		require.Len(t, arrived(wires), 11)
	})
}

func TestDelay(t *testing.T) {
	withSwitch(t, func(s *Switch, wires map[string]*wire) {
		s.Set(func(from, to string) nemesis.Rule {
			if from == "n1" {
				return nemesis.Rule{Delay: 100 * time.Millisecond}
			}
			return nemesis.Rule{}
		})
		got := arrived(wires)
		require.NotContains(t, got, "n1 to n2")
		require.Contains(t, got, "n2 to n1")
		time.Sleep(99 * time.Millisecond)
		synctest.Wait()
		require.Empty(t, wires["n2"].gets)
		time.Sleep(time.Millisecond)
		synctest.Wait()
		require.Len(t, wires["n2"].gets, 1)

		// What is under way when a cut comes is lost.
		wires["n1"].sends <- segment("n1", "n3", 1, 2, 0, 0)
		synctest.Wait()
		<-wires["n3"].gets // of before
		s.Set(func(string, string) nemesis.Rule { return nemesis.Rule{Cut: true} })
		time.Sleep(time.Second)
		synctest.Wait()
		require.Empty(t, wires["n3"].gets)
	})
}

func TestPair(t *testing.T) {
	now := time.Now()
	p := pair{rand: rand.New(rand.NewPCG(1, 1))}

	p.rule = nemesis.Rule{Loss: 0.25}
	lost := 0
	for range 10000 {
		if _, ok := p.admit(now, 1); !ok {
			lost++
		}
	}
	require.InDelta(t, 2500, lost, 200)

	// In order, whatever the jitter.
	p.rule = nemesis.Rule{Delay: time.Second, Jitter: time.Second}
	last := now
	for range 100 {
		at, ok := p.admit(now, 1)
		require.True(t, ok)
		require.False(t, at.Before(last))
		require.WithinRange(t, at, now.Add(time.Second), now.Add(2*time.Second))
		last = at
	}

	// At its rate, as far as the buffer goes.
	p = pair{rule: nemesis.Rule{BytesPerSecond: 1000}, rand: p.rand}
	in := 0
	for {
		at, ok := p.admit(now, 100)
		if !ok {
			break
		}
		in++
		require.Equal(t, now.Add(time.Duration(in)*100*time.Millisecond), at)
	}
	require.Equal(t, int(queueTime/(100*time.Millisecond)), in)
	_, ok := p.admit(now.Add(100*time.Millisecond), 100)
	require.True(t, ok, "there is room again")
}

// A member that looks dead: what others opened to it is reset, on both sides;
// what it opened goes on.
func TestRefuse(t *testing.T) {
	withSwitch(t, func(s *Switch, wires map[string]*wire) {
		require.NoError(t, s.Refuse("n1", true))
		send := func(from, to string, source, destination uint16, flags byte) {
			wires[from].sends <- segment(from, to, source, destination, flags, 10)
			synctest.Wait()
		}
		for _, c := range []struct {
			from, to            string
			source, destination uint16
		}{{"n2", "n1", 1000, 7072}, {"n1", "n2", 7072, 1000}} {
			send(c.from, c.to, c.source, c.destination, tcpACK)
			require.Empty(t, wires[c.to].gets)
			b := <-wires[c.from].gets
			require.Equal(t, byte(tcpRST), b[33])
			require.Equal(t, []byte{0, 0, 2, 0}, b[24:28], "the number that is waited for")
			source, destination, ok := tcpPorts(b)
			require.True(t, ok)
			require.Equal(t, []uint16{c.destination, c.source}, []uint16{source, destination})
			require.Zero(t, checksum(0, b[:20]))
			pseudo := uint32(26)
			for i := 12; i < 20; i += 2 {
				pseudo += uint32(b[i])<<8 + uint32(b[i+1])
			}
			require.Zero(t, checksum(pseudo, b[20:]))
		}
		send("n2", "n1", 1000, 7072, tcpSYN)
		b := <-wires["n2"].gets
		require.Equal(t, byte(tcpRST|tcpACK), b[33])
		require.Equal(t, []byte{0, 0, 1, 11}, b[28:32], "all that was sent, and the SYN")
		send("n2", "n1", 1000, 7072, tcpRST)
		require.Empty(t, wires["n2"].gets, "nobody answers a reset")

		send("n1", "n2", 1000, 7072, tcpACK)
		require.Len(t, wires["n2"].gets, 1)
		send(Clients, "n1", 1000, 7072, tcpACK)
		require.Len(t, wires["n1"].gets, 1)

		require.NoError(t, s.Refuse("n1", false))
		send("n2", "n1", 1000, 7072, tcpACK)
		require.Len(t, wires["n1"].gets, 2)
	})
}

// Where nothing is said, nobody sends what could be answered with a reset: both
// sides get one all the same, at once.
func TestRefuseEndsIdleConnections(t *testing.T) {
	withSwitch(t, func(s *Switch, wires map[string]*wire) {
		send := func(from, to string, source, destination uint16, flags byte) {
			wires[from].sends <- segment(from, to, source, destination, flags, 0)
			synctest.Wait()
		}
		open := func(from, to string, port uint16) {
			send(from, to, port, 7072, tcpSYN)
			send(to, from, 7072, port, tcpSYN|tcpACK)
			send(from, to, port, 7072, tcpACK)
		}
		for _, id := range ids[1:] {
			for port := uint16(1000); port < 1003; port++ {
				for _, to := range ids[1:] {
					if to != id {
						open(id, to, port)
					}
				}
			}
			open(Clients, id, 1000)
		}
		// What is over gets none.
		send("n2", "n1", 1001, 7072, tcpFIN|tcpACK)
		send("n1", "n2", 7072, 1001, tcpACK)
		send("n1", "n2", 7072, 1001, tcpFIN|tcpACK)
		send("n2", "n1", 1001, 7072, tcpACK)
		send("n1", "n2", 7072, 1002, tcpRST)
		send("n2", "n1", 1003, 7072, tcpSYN)        // not open yet
		send("n1", "n3", 7072, 1002, tcpFIN|tcpACK) // half open
		for _, w := range wires {
			for len(w.gets) > 0 {
				<-w.gets
			}
		}

		require.NoError(t, s.Refuse("n1", true))
		synctest.Wait()
		got := map[string]map[uint16]byte{}
		for _, id := range ids {
			got[id] = map[uint16]byte{}
			for len(wires[id].gets) > 0 {
				b := <-wires[id].gets
				source, destination, ok := tcpPorts(b)
				require.True(t, ok)
				if b[33]&tcpACK == 0 {
					require.Equal(t, []byte{0, 0, 2, 0}, b[24:28], "the number that is waited for")
				}
				if id == "n1" {
					source, destination = destination, source
					destination += uint16(b[15]) << 12 // the opener's address
				} else {
					require.Equal(t, address("n1").AsSlice(), b[12:16])
				}
				require.Equal(t, uint16(7072), source)
				require.NotContains(t, got[id], destination)
				got[id][destination] = b[33]
			}
		}
		n2, n3 := uint16(3)<<12, uint16(4)<<12
		require.Equal(t, map[string]map[uint16]byte{
			Clients: {},
			"n1":    {n2 + 1000: tcpRST, n3 + 1000: tcpRST, n3 + 1001: tcpRST, n3 + 1002: tcpRST},
			"n2":    {1000: tcpRST, 1003: tcpRST | tcpACK},
			"n3":    {1000: tcpRST, 1001: tcpRST, 1002: tcpRST},
		}, got)
		require.NoError(t, s.Refuse("n1", true))
		require.NoError(t, s.Refuse("n1", false))
		require.NoError(t, s.Refuse("n1", true))
		for _, w := range wires {
			require.Empty(t, w.gets, "they have ended")
		}
	})
}

// What is not for anybody, or is no IPv4, is nobody's.
func TestOtherPackets(t *testing.T) {
	withSwitch(t, func(_ *Switch, wires map[string]*wire) {
		for _, b := range [][]byte{{}, {0x45}, make([]byte, 60), append([]byte{0x60}, make([]byte, 60)...), append([]byte{0x45}, make([]byte, 30)...)} {
			wires["n1"].sends <- b
		}
		synctest.Wait()
		require.Len(t, arrived(wires), 12)
	})
}
