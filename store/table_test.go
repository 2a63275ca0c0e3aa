package store

// len is the number of chains, counted.
func (t *table) len() int {
	n := 0
	for i := range t.shards {
		for _, s := range t.shards[i].slots {
			if s.chain != nil {
				n++
			}
		}
	}
	return n
}
