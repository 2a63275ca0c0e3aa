package client_test

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"trivet/client"
)

// Many move amounts between accounts at a time. The total stays what it was, and
// nobody sees another.
func TestUpdateIsAsIfNobodyElseDid(t *testing.T) {
	c, ctx := open(t, client.Config{Endpoints: endpoints(t)}), within(t)
	accounts := []string{"account/a", "account/b", "account/c"}
	for _, a := range accounts {
		_, err := c.Put(ctx, a, []byte("100"))
		require.NoError(t, err)
	}
	number := func(tx *client.Tx, key string) (int, error) {
		it, err := tx.Get(key)
		if err != nil {
			return 0, err
		}
		return strconv.Atoi(string(it.Value))
	}
	var wg sync.WaitGroup
	for w := range 6 {
		wg.Go(func() {
			for i := range 10 {
				from, to := accounts[(w+i)%3], accounts[(w+i+1)%3]
				_, err := c.Update(ctx, func(tx *client.Tx) error {
					f, err := number(tx, from)
					if err != nil {
						return err
					}
					g, err := number(tx, to)
					if err != nil {
						return err
					}
					return errors.Join(tx.Put(from, []byte(strconv.Itoa(f-1))), tx.Put(to, []byte(strconv.Itoa(g+1))))
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Go(func() {
		for range 10 {
			var sum int
			_, err := c.Update(ctx, func(tx *client.Tx) error {
				sum = 0
				for _, a := range accounts {
					n, err := number(tx, a)
					if err != nil {
						return err
					}
					sum += n
				}
				return nil
			})
			if err != nil || sum != 300 {
				t.Error(sum, err)
			}
		}
	})
	wg.Wait()
}

func TestUpdate(t *testing.T) {
	c, ctx := open(t, client.Config{Endpoints: endpoints(t)}), within(t)
	// Somebody else writes between the reading and the writing, once.
	runs := 0
	res, err := c.Update(ctx, func(tx *client.Tx) error {
		runs++
		_, err := tx.Get("u")
		require.ErrorIs(t, err, client.ErrNotFound)
		if runs == 1 {
			_, err := c.Put(ctx, "u", []byte("other"))
			require.NoError(t, err)
			_, err = c.Delete(ctx, "u")
			require.NoError(t, err)
			// It is not there again, as it was: that is no change.
		}
		require.NoError(t, tx.Put("u", []byte("1")))
		it, err := tx.Get("u")
		require.NoError(t, err)
		require.Equal(t, client.Item{Key: "u", Value: []byte("1")}, it, "its own write")
		require.NoError(t, tx.Delete("gone"))
		_, err = tx.Get("gone")
		require.ErrorIs(t, err, client.ErrNotFound)
		return nil
	})
	require.NoError(t, err)
	require.Equal(t, 1, runs)
	require.Len(t, res.Results, 2)

	runs = 0
	var kept *client.Tx
	_, err = c.Update(ctx, func(tx *client.Tx) error {
		runs++
		kept = tx
		it, err := tx.Get("u")
		require.NoError(t, err)
		if runs <= 2 {
			_, err := c.Put(ctx, "u", []byte(strconv.Itoa(runs*10)))
			require.NoError(t, err)
		}
		return tx.Put("u", append(it.Value, '!'))
	})
	require.NoError(t, err)
	require.Equal(t, 3, runs)
	it, err := c.Get(ctx, "u")
	require.NoError(t, err)
	require.Equal(t, "20!", string(it.Value))
	requireError(t, kept.Put("u", nil), client.NotApplied)

	// An error aborts.
	mine := errors.New("mine")
	_, err = c.Update(ctx, func(tx *client.Tx) error {
		require.NoError(t, tx.Put("u", nil))
		return mine
	})
	require.Equal(t, mine, err)
	after, err := c.Get(ctx, "u")
	require.NoError(t, err)
	require.Equal(t, it, after)

	// It goes on until the context ends, and says why.
	short, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	_, err = c.Update(short, func(tx *client.Tx) error {
		if _, err := tx.Get("u"); err != nil {
			return err
		}
		if _, err := c.Put(ctx, "u", nil); err != nil {
			return err
		}
		return tx.Put("u", nil)
	})
	require.ErrorIs(t, err, context.DeadlineExceeded)

	_, err = c.Update(ctx, func(tx *client.Tx) error { return tx.Put("", nil) })
	requireError(t, err, client.NotApplied, client.ErrBadRequest)
	_, err = c.Update(ctx, func(tx *client.Tx) error { return tx.Put("u", nil) }, client.WithGuard("nobody's", 7))
	requireError(t, err, client.NotApplied, client.ErrGuardFailed)
}
