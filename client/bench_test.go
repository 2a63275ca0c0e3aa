package client_test

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"trivet/client"
	"trivet/trivettest"
)

// The members are in the process too, so that a profile shows the whole of what a
// call costs.
func benchmark(b *testing.B, do func(c *client.Client, key string, value []byte) error) {
	benchmarkOf(b, []int{1, 64, 256}, do)
}

const benchKeys = 10_000

func benchmarkOf(b *testing.B, callers []int, do func(c *client.Client, key string, value []byte) error) {
	cluster := trivettest.Start(b)
	const keys = benchKeys
	for _, callers := range callers {
		b.Run(fmt.Sprint(callers), func(b *testing.B) {
			c := open(b, client.Config{Endpoints: cluster.Endpoints()})
			value := make([]byte, 256)
			for at := 0; at < keys; at += 500 {
				txn := c.Txn()
				for i := at; i < at+500; i++ {
					txn.Then(client.OpPut(fmt.Sprintf("bench/%08d", i), value))
				}
				if _, err := txn.Commit(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportAllocs()
			b.ResetTimer()
			var wg sync.WaitGroup
			for w := range callers {
				n := b.N / callers
				if w < b.N%callers {
					n++
				}
				wg.Go(func() {
					for range n {
						if err := do(c, fmt.Sprintf("bench/%08d", rand.IntN(keys)), value); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "ops/s")
		})
	}
}

func BenchmarkPut(b *testing.B) {
	benchmark(b, func(c *client.Client, key string, value []byte) error {
		_, err := c.Put(b.Context(), key, value)
		return err
	})
}

func BenchmarkGet(b *testing.B) {
	benchmark(b, func(c *client.Client, key string, _ []byte) error {
		_, err := c.Get(b.Context(), key)
		return err
	})
}

// BenchmarkList lists a hundred keys from a random one on.
func BenchmarkList(b *testing.B) {
	const count = 100
	last := fmt.Sprintf("bench/%08d", benchKeys-count)
	benchmarkOf(b, []int{1, 16, 64}, func(c *client.Client, key string, _ []byte) error {
		n := 0
		for _, err := range c.List(b.Context(), client.Between(min(key, last), "bench/~"), client.Limit(count)) {
			if err != nil {
				return err
			}
			n++
		}
		if n != count {
			return fmt.Errorf("%d items from %s on", n, key)
		}
		return nil
	})
}
