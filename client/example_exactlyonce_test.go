package client_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"strconv"
	"time"

	"trivet/client"
)

// Moving an amount from one account to another, as if nobody else did anything
// meanwhile.
func ExampleClient_Update() {
	ctx := context.Background()
	c, err := client.Open(ctx, client.Config{Endpoints: exampleEndpoints()})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Put(ctx, "accounts/ann", []byte("100")); err != nil {
		log.Fatal(err)
	}

	errTooLittle := errors.New("there is not that much on the account")
	move := func(from, to string, amount int) error {
		_, err := c.Update(ctx, func(tx *client.Tx) error {
			balance := map[string]int{}
			for _, key := range []string{from, to} {
				item, err := tx.Get(key)
				if errors.Is(err, client.ErrNotFound) {
					continue // an account with nothing on it
				}
				if err != nil {
					return err
				}
				if balance[key], err = strconv.Atoi(string(item.Value)); err != nil {
					return err
				}
			}
			if balance[from] < amount {
				return errTooLittle // and nothing is written
			}
			return errors.Join(
				tx.Put(from, []byte(strconv.Itoa(balance[from]-amount))),
				tx.Put(to, []byte(strconv.Itoa(balance[to]+amount))),
			)
		})
		return err
	}
	fmt.Println(move("accounts/ann", "accounts/bob", 70))
	fmt.Println(move("accounts/ann", "accounts/bob", 70))
	item, err := c.Get(ctx, "accounts/bob")
	fmt.Println(string(item.Value), err)
	// Output:
	// <nil>
	// there is not that much on the account
	// 70 <nil>
}

// A caller who cannot wait any longer leaves with ErrUnknown where the write is under
// way, and asks later what became of it.
func ExampleClient_Resolve() {
	ctx := context.Background()
	c, err := client.Open(ctx, client.Config{Endpoints: exampleEndpoints()})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	hurried, cancel := context.WithTimeout(ctx, 100*time.Microsecond)
	defer cancel()
	_, err = c.Add(hurried, "visits", 1)
	counted := err == nil
	if errors.Is(err, client.ErrUnknown) {
		res, err := c.Resolve(ctx, err)
		if err != nil {
			log.Fatal(err)
		}
		counted = res.Applied
	}
	if !counted { // certainly: so it may be added once more
		if _, err := c.Add(ctx, "visits", 1); err != nil {
			log.Fatal(err)
		}
	}
	item, err := c.Get(ctx, "visits")
	fmt.Println(string(item.Value), err)
	// Output:
	// 1 <nil>
}
