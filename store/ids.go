package store

import (
	"math/bits"

	"trivet/trivetpb"
)

// idBits: ids fit into the integers that every JSON reader keeps exactly.
const idBits = 52

const goldenRatio = 0x9e3779b97f4a7c15 // 2^64 divided by the goldenRatio ratio

// drawID draws the next id of a lease or a session: SplitMix64 (Steele, Lea and
// Flood, "Fast splittable pseudorandom number generators") from the cluster's
// seed on. So an id of one cluster, or of one that a backup was restored to,
// most likely means nothing in another, and the state machine still decides it.
func (st *state) drawID() uint64 {
	for {
		id := scramble(st.seed+st.nextID*goldenRatio) & (1<<idBits - 1)
		st.nextID++
		if id == 0 {
			continue
		}
		if _, taken := st.leases.get(id); taken {
			continue
		}
		if _, taken := st.sessions.get(id); taken {
			continue
		}
		return id
	}
}

// scramble is SplitMix64's output function, a bijection in which every bit of
// the input bears on every bit of the output.
func scramble(z uint64) uint64 {
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// mix is a hash of a few numbers, of which the first says what they are.
func mix(kind byte, numbers ...uint64) uint64 {
	h := uint64(kind)
	for _, n := range numbers {
		h = scramble(bits.RotateLeft64(h, 23)*goldenRatio + n)
	}
	return h
}

// Bounds of what lasts for a time. Apply keeps them: they must never change.
const (
	// MinTTLMS and MaxTTLMS bound the ttl of leases, locks and sessions.
	MinTTLMS = 1000
	MaxTTLMS = 24 * 60 * 60 * 1000
)

func checkTTL(ttlMS uint64) *trivetpb.Problem {
	if ttlMS < MinTTLMS || ttlMS > MaxTTLMS {
		return problemf(trivetpb.Code_BAD_REQUEST, "the ttl is %d ms, and may be %d to %d", ttlMS, uint64(MinTTLMS), uint64(MaxTTLMS))
	}
	return nil
}
