package store

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"trivet/trivetpb"
)

func newTestGroup(keys *trivetpb.KeyRange) *watchGroup {
	return &watchGroup{id: groupID(keys), start: string(keys.Start), end: string(keys.End)}
}

// keyAlone is the range of one key.
func keyAlone(key string) *trivetpb.KeyRange {
	return &trivetpb.KeyRange{Start: []byte(key), End: []byte(key + "\x00")}
}

// The index finds the groups that hold the key, whatever came and went before;
// and keeps nothing of what went.
func TestWatchIndexFindsWhatHoldsTheKey(t *testing.T) {
	key := rapid.StringOfN(rapid.SampledFrom([]rune("ab\x00\u00ff")), 0, 5, -1)
	rapid.Check(t, func(t *rapid.T) {
		var x watchIndex
		var groups []*watchGroup
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				var keys *trivetpb.KeyRange
				switch rapid.SampledFrom([]string{"key", "prefix", "range", "high"}).Draw(t, "kind") {
				case "key":
					keys = keyAlone(key.Draw(t, "key"))
				case "prefix":
					keys = PrefixRange([]byte(key.Draw(t, "prefix")))
				case "high":
					keys = PrefixRange([]byte(strings.Repeat("\xff", rapid.IntRange(0, 3).Draw(t, "n"))))
				default:
					keys = &trivetpb.KeyRange{Start: []byte(key.Draw(t, "start")), End: []byte(key.Draw(t, "end"))}
				}
				g := newTestGroup(keys)
				if !slices.ContainsFunc(groups, func(o *watchGroup) bool { return o.id == g.id }) {
					x.add(g)
					groups = append(groups, g)
				}
			},
			"remove": func(t *rapid.T) {
				if len(groups) == 0 {
					t.Skip("none")
				}
				i := rapid.IntRange(0, len(groups)-1).Draw(t, "group")
				x.remove(groups[i])
				groups = slices.Delete(groups, i, i+1)
			},
			"": func(t *rapid.T) {
				for range 5 {
					k := key.Draw(t, "k")
					if rapid.Bool().Draw(t, "high") {
						k = "\xff\xff" + k
					}
					found := x.find(k, nil)
					want := 0
					for _, g := range groups {
						if g.holds(k) {
							want++
							require.Contains(t, found, g)
						}
					}
					require.Len(t, found, want)
				}
				requireIndexSound(t, &x, len(groups))
			},
		})
		for _, g := range groups {
			x.remove(g)
		}
		require.Equal(t, watchIndex{root: watchNode{nodes: x.root.nodes}}, x)
		require.Empty(t, x.root.nodes)
	})
}

// requireIndexSound checks what must hold of both trees.
func requireIndexSound(t require.TestingT, x *watchIndex, groups int) {
	count := 0
	var walk func(n *watchNode, root bool)
	walk = func(n *watchNode, root bool) {
		for _, g := range []*watchGroup{n.key, n.prefix} {
			if g != nil {
				count++
			}
		}
		require.Len(t, n.nodes, len(n.firsts))
		require.True(t, slices.IsSorted([]byte(n.firsts)))
		require.True(t, root || n.key != nil || n.prefix != nil || len(n.nodes) > 1, "a node for nothing")
		for i, below := range n.nodes {
			require.Equal(t, n.firsts[i], below.label[0])
			walk(below, false)
		}
	}
	walk(&x.root, true)
	var last *watchGroup
	var down func(n *rangeNode)
	down = func(n *rangeNode) {
		if n == nil {
			return
		}
		down(n.left)
		require.True(t, last == nil || last.compare(n.group) < 0)
		last = n.group
		count++
		for _, below := range []*rangeNode{n.left, n.right} {
			if below != nil {
				require.LessOrEqual(t, below.priority, n.priority)
				require.True(t, n.endless || (!below.endless && below.reach <= n.reach))
			}
		}
		down(n.right)
	}
	down(x.ranges.root)
	require.Equal(t, groups, count)
}

// What is watched elsewhere costs a lookup nothing, and ranges a logarithm.
func BenchmarkWatchIndexFind(b *testing.B) {
	for name, keys := range map[string]func(i int) *trivetpb.KeyRange{
		"keys":   func(i int) *trivetpb.KeyRange { return keyAlone(string(benchKey(i))) },
		"ranges": func(i int) *trivetpb.KeyRange { return &trivetpb.KeyRange{Start: benchKey(i), End: benchKey(i + 3)} },
	} {
		b.Run(name, func(b *testing.B) {
			var x watchIndex
			for i := range 10_000 {
				x.add(newTestGroup(keys(2 * i)))
			}
			var found []*watchGroup
			i := 0
			for b.Loop() {
				found = x.find(keyString(benchKey(i%20_000)), found[:0])
				i += 7919
			}
		})
	}
}
