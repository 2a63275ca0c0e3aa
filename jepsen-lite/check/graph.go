package check

import (
	"slices"
)

// edgeKind is why one transaction must come before another.
type edgeKind uint8

const (
	ww       edgeKind = 1 << iota // the other's write came behind its own
	wr                            // the other read what it wrote
	rw                            // it did not read what the other wrote
	realTime                      // it was over before the other began
)

func (k edgeKind) String() string {
	return map[edgeKind]string{ww: "ww", wr: "wr", rw: "rw", realTime: "real time"}[k]
}

// edge leads to a transaction, by its number.
type edge struct {
	to   int
	kind edgeKind
	key  string // of what; empty of real time
}

// graph is transactions and what orders them.
type graph struct {
	out   [][]edge
	count int
}

func newGraph(n int) *graph { return &graph{out: make([][]edge, n)} }

func (g *graph) add(from, to int, kind edgeKind, key string) {
	if from != to {
		g.out[from] = append(g.out[from], edge{to, kind, key})
		g.count++
	}
}

// components numbers the strongly connected components over edges of the given
// kinds, with Tarjan's algorithm, without recursion, as paths may be long; and
// returns the size of each.
func (g *graph) components(kinds edgeKind) (of []int, sizes []int) {
	const unseen = -1
	n := len(g.out)
	of = make([]int, n)
	index, low := make([]int, n), make([]int, n)
	onStack := make([]bool, n)
	for i := range n {
		of[i], index[i] = unseen, unseen
	}
	var stack []int
	type frame struct{ node, next int }
	var frames []frame
	counter := 0
	for root := range n {
		if index[root] != unseen {
			continue
		}
		frames = append(frames[:0], frame{root, 0})
		for len(frames) > 0 {
			f := &frames[len(frames)-1]
			v := f.node
			if f.next == 0 {
				index[v], low[v] = counter, counter
				counter++
				stack = append(stack, v)
				onStack[v] = true
			}
			descended := false
			for f.next < len(g.out[v]) {
				e := g.out[v][f.next]
				f.next++
				if e.kind&kinds == 0 {
					continue
				}
				if index[e.to] == unseen {
					frames = append(frames, frame{e.to, 0})
					descended = true
					break
				}
				if onStack[e.to] {
					low[v] = min(low[v], index[e.to])
				}
			}
			if descended {
				continue
			}
			// A node without an edge to look at comes here at once, and next
			// stays 0, but then it is popped.
			if low[v] == index[v] {
				size := 0
				for {
					w := stack[len(stack)-1]
					stack = stack[:len(stack)-1]
					onStack[w] = false
					of[w] = len(sizes)
					size++
					if w == v {
						break
					}
				}
				sizes = append(sizes, size)
			}
			frames = frames[:len(frames)-1]
			if len(frames) > 0 {
				p := frames[len(frames)-1].node
				low[p] = min(low[p], low[v])
			}
		}
	}
	return of, sizes
}

// path returns the shortest way from one transaction to another over edges of
// the given kinds that stays where inside says; nil where there is none. The
// edges are those along the way.
func (g *graph) path(from, to int, kinds edgeKind, inside func(int) bool) []edge {
	type step struct {
		from int
		edge edge
	}
	came := map[int]step{}
	queue := []int{from}
	for len(queue) > 0 {
		v := queue[0]
		queue = queue[1:]
		for _, e := range g.out[v] {
			if e.kind&kinds == 0 || !inside(e.to) {
				continue
			}
			if _, seen := came[e.to]; seen {
				continue
			}
			came[e.to] = step{v, e}
			if e.to == to {
				var way []edge
				for at := to; ; {
					s := came[at]
					way = append(way, s.edge)
					if at = s.from; at == from {
						slices.Reverse(way)
						return way
					}
				}
			}
			queue = append(queue, e.to)
		}
	}
	return nil
}
