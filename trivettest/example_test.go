package trivettest_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"trivet/client"
	"trivet/trivettest"
)

// A write whose answer is lost on its way back is sent again, and was applied once.
func ExampleCluster_Fail() {
	cluster, err := trivettest.Open(trivettest.InMemory())
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, c := context.Background(), cluster.Client()
	lost := cluster.Fail(trivettest.AnyMember, trivettest.LoseAnswer())
	visits, err := c.Add(ctx, "visits", 1)
	<-lost
	fmt.Println(visits, err)

	cluster.Fail(trivettest.AnyMember, trivettest.Respond(429), trivettest.Times(100))
	short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	_, err = c.Add(short, "visits", 1)
	fmt.Println(errors.Is(err, client.ErrOverloaded))
	cluster.Heal()

	fmt.Println("closed:", cluster.Close())
	// Output:
	// 1 <nil>
	// true
	// closed: <nil>
}

// In a test it is trivettest.Start(t), and nothing is to be closed.
func Example() {
	cluster, err := trivettest.Open()
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, c := context.Background(), cluster.Client()
	_, err = c.Add(ctx, "visits", 1)
	fmt.Println("one:", err)

	leader := cluster.Leader()
	cluster.Kill(leader)
	visits, err := c.Add(ctx, "visits", 1)
	fmt.Println("two:", visits, err)

	cluster.Restart(leader)
	cluster.Partition([]int{cluster.Leader()}, []int{0, 1, 2})
	visits, err = c.Add(ctx, "visits", 1)
	fmt.Println("three:", visits, err)
	cluster.Heal()

	fmt.Println("closed:", cluster.Close())
	// Output:
	// one: <nil>
	// two: 2 <nil>
	// three: 3 <nil>
	// closed: <nil>
}
