package httpapi

import (
	"io"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
)

// A watch that does not follow ends with the synced frame, and its connection can be
// used again.
func TestWatchThatDoesNotFollow(t *testing.T) {
	d := openDoor(t, newSoloNode(), Config{})
	d.node.put(t, "a/1", "one")
	first := d.node.Store().Revision()
	d.node.put(t, "b", "not asked for")
	d.node.put(t, "a/2", "two")
	for _, tc := range []struct {
		query string
		types []string
	}{
		{"prefix=a/&initial=true&follow=false", []string{"items", "synced"}},
		{"prefix=a/&from_revision=" + strconv.FormatUint(first, 10) + "&follow=false", []string{"change", "change", "synced"}},
		{"prefix=a/&from_revision=" + strconv.FormatUint(d.node.Store().Revision()+1, 10) + "&follow=false", []string{"synced"}},
		{"prefix=c/&follow=false", []string{"synced"}},
	} {
		w := d.watch(tc.query)
		for i, kind := range tc.types {
			f := w.next()
			require.Equal(t, kind, f.Type, "%s: frame %d", tc.query, i)
			if kind == "synced" {
				require.Equal(t, d.node.Store().Revision(), f.Revision)
			}
		}
		_, err := w.line()
		require.ErrorIs(t, err, io.EOF, tc.query)
	}
	w := d.watch("prefix=a/&follow=true")
	require.Equal(t, "synced", w.next().Type)
	d.node.put(t, "a/3", "three")
	require.Equal(t, "change", w.next().Type)
}

func TestFollowIsTrueOrFalse(t *testing.T) {
	d := openDoor(t, newSoloNode(), Config{})
	resp := d.do("GET", "/v1/watch?follow=maybe", "")
	require.Equal(t, 400, resp.status)
	require.Contains(t, resp.body, "follow must be true or false")
}
