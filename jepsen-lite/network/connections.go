package network

import "net/netip"

// connection is one that was opened to a peer port.
type connection struct {
	opener netip.AddrPort
	member netip.Addr
}

// ends is what each end of a connection sent last, its headers alone: the opener
// and the member. nil where an end has sent nothing.
type ends struct {
	last [2][]byte
	fin  [2]bool
}

// maxHeaders is the length of the longest headers of IPv4 and TCP.
const maxHeaders = 60 + 60

// connections are those that are open. Some of them say nothing for most of their
// time: where one is to end, nobody can wait for a packet that could be answered
// with a reset. There are at most as many as openers have ports; one whose end
// was lost stays until its port is used again.
type connections struct {
	peerPort uint16
	open     map[connection]*ends
}

// note takes a packet between members that is let through.
func (c *connections) note(b []byte) {
	source, destination, ok := tcpPorts(b)
	if !ok {
		return
	}
	from, to := netip.AddrFrom4([4]byte(b[12:16])), receiver(b)
	var of connection
	end := 0
	switch c.peerPort {
	case destination:
		of = connection{netip.AddrPortFrom(from, source), to}
	case source:
		of, end = connection{netip.AddrPortFrom(to, destination), from}, 1
	default:
		return
	}
	flags := tcp(b)[13]
	if flags&tcpRST != 0 {
		delete(c.open, of)
		return
	}
	if end == 0 && flags&(tcpSYN|tcpACK) == tcpSYN {
		c.open[of] = &ends{}
	}
	e := c.open[of]
	if e == nil {
		return // the last words of one that is over
	}
	e.last[end] = append(e.last[end][:0], b[:min(len(b), maxHeaders)]...)
	e.fin[end] = e.fin[end] || flags&tcpFIN != 0
	if e.fin[0] && e.fin[1] {
		delete(c.open, of)
	}
}

// end returns the resets that end what was opened to a member, on both sides. A
// kernel takes one with the number that it waits for alone (RFC 5961, 3.2): the
// last that it has acknowledged, unless an acknowledgement is still to come. That
// one is refused, then, and so answered with a reset.
func (c *connections) end(member netip.Addr) [][]byte {
	var resets [][]byte
	for of, e := range c.open {
		if of.member != member {
			continue
		}
		delete(c.open, of)
		for _, last := range e.last {
			if last == nil {
				continue
			}
			if r := reset(last); r != nil {
				resets = append(resets, r)
			}
		}
	}
	return resets
}

// receiver is whom a packet is for.
func receiver(b []byte) netip.Addr { return netip.AddrFrom4([4]byte(b[16:20])) }
