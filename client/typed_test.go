package client_test

import (
	"errors"
	"math"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"trivet/client"
)

type user struct {
	Name   string   `json:"name"`
	Visits int      `json:"visits,omitempty"`
	Score  *float64 `json:"score,omitempty"`
}

func TestTypedView(t *testing.T) {
	c, ctx := open(t, client.Config{Endpoints: endpoints(t)}), within(t)
	users := client.JSON[user](c, "users/")
	put, err := users.Put(ctx, "7", user{Name: "Ada"}, client.IfAbsent())
	require.NoError(t, err)
	raw, err := c.Get(ctx, "users/7")
	require.NoError(t, err)
	require.Equal(t, `{"name":"Ada"}`, string(raw.Value))
	doc, err := users.Get(ctx, "7")
	require.NoError(t, err)
	require.Equal(t, client.Document[user]{Key: "7", Value: user{Name: "Ada"}, Item: raw}, doc)
	require.Equal(t, put.Revision, doc.Item.ModRevision)
	_, err = users.Get(ctx, "8")
	requireError(t, err, client.NotApplied, client.ErrNotFound)
	require.ErrorContains(t, err, `"users/8"`)

	// Counters of many goroutines, none lost.
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 5 {
				_, err := users.Update(ctx, "7", func(u *user, exists bool) error {
					require.True(t, exists)
					u.Visits++
					return nil
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	written, err := users.Update(ctx, "8", func(u *user, exists bool) error {
		require.False(t, exists)
		u.Name = "Bob"
		return nil
	})
	require.NoError(t, err)
	require.Equal(t, user{Name: "Bob"}, written)
	enough := errors.New("enough")
	_, err = users.Update(ctx, "8", func(*user, bool) error { return enough })
	require.ErrorIs(t, err, enough)

	var list []user
	for doc, err := range users.List(ctx) {
		require.NoError(t, err)
		list = append(list, doc.Value)
	}
	require.Equal(t, []user{{Name: "Ada", Visits: 40}, {Name: "Bob"}}, list)
}

// What is no document is named, and stops nothing else.
func TestTypedViewOfOtherThings(t *testing.T) {
	c, ctx := open(t, client.Config{Endpoints: endpoints(t)}), within(t)
	users := client.JSON[user](c, "users/")
	strict := client.JSON[user](c, "users/", client.DisallowUnknownFields())
	for key, value := range map[string]string{
		"users/1": `{"name":"Ada"}`, "users/2": `{"name":7}`, "users/3": `{"name":"Bob","age":7}`,
		"users/4": ``, "users/5": `{"name":"Eve"} {}`, "users/6": `<html>`,
	} {
		_, err := c.Put(ctx, key, []byte(value))
		require.NoError(t, err)
	}
	for _, key := range []string{"2", "4", "5", "6"} {
		_, err := users.Get(ctx, key)
		requireError(t, err, client.NotApplied, client.ErrDocument)
		require.ErrorContains(t, err, `"users/`+key+`"`)
		_, err = users.Update(ctx, key, func(*user, bool) error { t.Error("called"); return nil })
		requireError(t, err, client.NotApplied, client.ErrDocument)
	}
	doc, err := users.Get(ctx, "3")
	require.NoError(t, err)
	require.Equal(t, "Bob", doc.Value.Name)
	_, err = strict.Get(ctx, "3")
	requireError(t, err, client.NotApplied, client.ErrDocument)
	require.ErrorContains(t, err, "age")
	nan := math.NaN()
	_, err = users.Put(ctx, "9", user{Score: &nan})
	requireError(t, err, client.NotApplied, client.ErrDocument)
	require.ErrorContains(t, err, `"users/9"`)

	good, bad := 0, 0
	for _, err := range users.List(ctx) {
		if err != nil {
			require.ErrorIs(t, err, client.ErrDocument)
			bad++
			continue
		}
		good++
	}
	require.Equal(t, 2, good)
	require.Equal(t, 4, bad)

	// The watch tells the same, and goes on.
	good, bad = 0, 0
	for e, err := range users.Watch(ctx) {
		switch {
		case errors.Is(err, client.ErrDocument):
			bad++
		case err != nil:
			require.NoError(t, err)
		case e.Synced:
			require.Equal(t, []int{2, 4}, []int{good, bad})
			_, err := users.Put(ctx, "6", user{Name: "Zoe"})
			require.NoError(t, err)
			_, err = users.Delete(ctx, "1")
			require.NoError(t, err)
		case e.Deleted:
			require.Equal(t, "1", e.Key)
			require.Equal(t, 3, good)
			return
		default:
			good++
		}
	}
	t.Error("the watch ended")
}
