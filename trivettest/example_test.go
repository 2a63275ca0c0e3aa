package trivettest_test

import (
	"context"
	"fmt"

	"trivet/trivettest"
)

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
