package network

import "encoding/binary"

// Flags of TCP (RFC 9293, 3.1).
const (
	tcpFIN = 1
	tcpSYN = 2
	tcpRST = 4
	tcpACK = 16
)

// tcp returns the TCP part of an IPv4 packet; nil where it has none.
func tcp(b []byte) []byte {
	if len(b) < 20 || b[9] != 6 {
		return nil
	}
	header := int(b[0]&15) * 4
	// A fragment but the first has no ports.
	if header < 20 || len(b) < header+20 || binary.BigEndian.Uint16(b[6:])&0x1fff != 0 {
		return nil
	}
	return b[header:]
}

func tcpPorts(b []byte) (source, destination uint16, ok bool) {
	t := tcp(b)
	if t == nil {
		return 0, 0, false
	}
	return binary.BigEndian.Uint16(t), binary.BigEndian.Uint16(t[2:]), true
}

// reset returns what a kernel answers to a TCP packet for which it has no
// connection (RFC 9293, 3.10.7.1); nil where that is nothing.
func reset(b []byte) []byte {
	t := tcp(b)
	if t == nil || t[13]&tcpRST != 0 {
		return nil
	}
	r := make([]byte, 40)
	r[0], r[8], r[9] = 4<<4|5, 64, 6
	binary.BigEndian.PutUint16(r[2:], uint16(len(r)))
	copy(r[12:16], b[16:20])
	copy(r[16:20], b[12:16])
	binary.BigEndian.PutUint16(r[10:], checksum(0, r[:20]))
	a := r[20:]
	copy(a[0:2], t[2:4])
	copy(a[2:4], t[0:2])
	a[12] = 5 << 4
	if t[13]&tcpACK != 0 {
		copy(a[4:8], t[8:12])
		a[13] = tcpRST
	} else {
		n := uint32(len(t) - int(t[12]>>4)*4) // bytes of content
		for _, flag := range []byte{tcpSYN, tcpFIN} {
			if t[13]&flag != 0 {
				n++
			}
		}
		binary.BigEndian.PutUint32(a[8:], binary.BigEndian.Uint32(t[4:])+n)
		a[13] = tcpRST | tcpACK
	}
	// Over a header that TCP makes up: the addresses, the protocol, the length.
	pseudo := uint32(6 + len(a))
	for i := 12; i < 20; i += 2 {
		pseudo += uint32(binary.BigEndian.Uint16(r[i:]))
	}
	binary.BigEndian.PutUint16(a[16:], checksum(pseudo, a))
	return r
}

// checksum is the internet's (RFC 1071), of an even number of bytes.
func checksum(sum uint32, b []byte) uint16 {
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
