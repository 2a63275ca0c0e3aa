package raftnode

import (
	"fmt"
	"maps"
	"testing"

	"github.com/stretchr/testify/require"

	"trivet/trivetpb"
)

// The first members' agreement (formation.go) by itself: questions and answers that
// take as long as they like, crashes, and folders that are lost, in any order.

type firstMember struct {
	id string
	// Its disk.
	folder  string
	folders map[string]string // formed with these
	follows bool
	knows   bool // a committed configuration
	stopped bool // it was told that its folder is not the member's
	// Its process; nil while it is down. run counts them.
	f   *formation
	run int
	// decided, and not yet written down.
	decided bool
}

func (m *firstMember) begun() bool { return m.folders != nil || m.follows }

type firstQuestion struct {
	from, to *firstMember
	run      int
	asked    uint64
	answer   *trivetpb.HelloReply // nil: on its way there
}

type firstModel struct {
	t       *testing.T
	rnd     *random
	members []*firstMember
	peers   map[string]string
	under   []*firstQuestion
	folder  int
	wipes   int // left
	// established is what a majority has begun with: it may have written something.
	established map[string]string
	wrong       string // what the first check said that failed
	verbose     bool
}

func (w *firstModel) tell(format string, args ...any) {
	if w.verbose {
		w.t.Logf(format, args...)
	}
}

func (w *firstModel) wipe(m *firstMember) {
	w.folder++
	*m = firstMember{id: m.id, folder: fmt.Sprint("f", w.folder), run: m.run + 1}
	w.tell("%s has the new folder %s", m.id, m.folder)
}

func (w *firstModel) start(m *firstMember) {
	m.run++
	m.f = newFormation(m.id, &storage{incarnation: m.folder, peers: w.peers, formed: m.folders != nil, folders: m.folders})
	w.tell("%s starts", m.id)
}

// answer is what Node.admit answers.
func (w *firstModel) answer(m *firstMember, q *firstQuestion, asker string) *trivetpb.HelloReply {
	r := &trivetpb.HelloReply{Incarnation: m.folder}
	switch {
	case !m.begun():
		r.Forming, r.Folders = true, m.f.told()
	case !m.knows:
		r.Folders = m.f.began()
	case w.established[q.from.id] == asker:
		r.Named = true
	default:
		r.Code = trivetpb.HelloReply_OTHER_FOLDER
	}
	return r
}

// step does one thing that can happen.
func (w *firstModel) step(faults bool) {
	m := w.members[w.rnd.Intn(len(w.members))]
	what := w.rnd.Intn(20)
	switch {
	case what < 8 && len(w.under) > 0:
		i := w.rnd.Intn(len(w.under))
		q := w.under[i]
		if q.answer == nil && q.to.f != nil && q.from.run == q.run {
			q.answer = w.answer(q.to, q, q.from.folder)
			w.tell("%s (%s) answers %s: %v", q.to.id, q.to.folder, q.from.id, q.answer)
			return
		}
		w.under = append(w.under[:i], w.under[i+1:]...)
		if q.answer == nil || q.from.run != q.run || q.from.f == nil || q.from.begun() {
			return // lost
		}
		w.tell("%s (%s) hears %s", q.from.id, q.from.folder, q.to.id)
		if q.answer.Code == trivetpb.HelloReply_OTHER_FOLDER {
			q.from.stopped, q.from.f = true, nil
			return
		}
		q.from.f.heard(q.to.id, q.asked, q.answer)
	case what < 14:
		to := w.members[w.rnd.Intn(len(w.members))]
		if m.f != nil && !m.begun() && to != m && len(w.under) < 20 {
			w.under = append(w.under, &firstQuestion{from: m, to: to, run: m.run, asked: m.f.asking()})
		}
	case what < 17:
		switch {
		case m.f == nil && !m.stopped:
			w.start(m)
		case m.f == nil || m.begun():
		case m.decided:
			m.folders, m.decided = m.f.told(), false
			w.tell("%s (%s) begins with %v", m.id, m.folder, m.folders)
		case m.f.isNamed():
			m.follows = true
		default:
			m.decided = m.f.decide()
		}
	case what < 18: // somebody hears of a committed configuration
		if m.f != nil && m.begun() && w.established != nil && w.established[m.id] == m.folder {
			m.knows = true
		}
	case what < 19 && faults && w.rnd.Intn(3) == 0:
		w.tell("%s crashes", m.id)
		m.f, m.decided = nil, false
		m.run++
	case what == 19 && faults && w.wipes > 0 && w.rnd.Intn(5) == 0:
		w.wipes--
		w.wipe(m)
	}
}

// ended says that everybody has begun, or was told that it cannot.
func (w *firstModel) ended() bool {
	for _, m := range w.members {
		if !m.begun() && !m.stopped {
			return false
		}
	}
	return true
}

func (w *firstModel) check() {
	var with map[string]string
	var who string
	for _, m := range w.members {
		switch {
		case m.folders == nil:
			continue
		case with == nil:
			with, who = m.folders, m.id
		case !maps.Equal(with, m.folders):
			w.fail("%s has begun with %v, %s with %v", who, with, m.id, m.folders)
		}
		if w.established != nil && !maps.Equal(w.established, m.folders) {
			w.fail("a majority has begun with %v, %s with %v", w.established, m.id, m.folders)
		}
		begun := 0
		for _, other := range w.members {
			if other.folders != nil && other.folder == m.folders[other.id] {
				begun++
			}
		}
		if w.established == nil && begun > len(w.members)/2 {
			w.established = m.folders
			w.tell("a majority has begun with %v", m.folders)
		}
	}
}

func (w *firstModel) fail(format string, args ...any) {
	if w.wrong == "" {
		w.wrong = fmt.Sprintf(format, args...)
		w.tell("WRONG: %s", w.wrong)
	}
}

// No two members have begun with different folders, and none does after a majority
// has, whatever happens, as long as a minority loses its folders. In the end all
// have begun, but for wiped ones.
func TestFirstMembersAgree(t *testing.T) {
	late := 0
	for seed := range int64(4_000) {
		w := runFirstMembers(t, seed, false)
		if w.wrong != "" {
			runFirstMembers(t, seed, true)
			t.Fatalf("seed %d: %s", seed, w.wrong)
		}
		for _, m := range w.members {
			if w.established[m.id] != m.folder {
				late++
				require.True(t, m.stopped)
			}
		}
	}
	require.Greater(t, late, 10, "members wiped after the beginning")
}

func runFirstMembers(t *testing.T, seed int64, verbose bool) *firstModel {
	n := 3
	if seed%4 == 0 {
		n = 2 + int(seed/4%4)
	}
	w := &firstModel{t: t, rnd: newRandom(seed), peers: map[string]string{}, wipes: (n - 1) / 2, verbose: verbose}
	for i := range n {
		m := &firstMember{id: fmt.Sprint("n", i+1)}
		w.peers[m.id] = m.id + ":1"
		w.members = append(w.members, m)
		w.wipe(m)
	}
	for range 100 + w.rnd.Intn(200) {
		w.step(true)
		w.check()
	}
	for range 5000 {
		w.step(false)
		w.check()
		if w.ended() || w.wrong != "" {
			break
		}
	}
	if w.established == nil || !w.ended() {
		w.fail("not all have begun in the end")
	}
	return w
}

// What was answered before a member came to hold what it holds now is no agreement:
// it has told others meanwhile that it holds something else.
func TestFirstMemberAsksAgain(t *testing.T) {
	f := newFormation("n1", &storage{incarnation: "a", peers: map[string]string{"n1": "1", "n2": "2", "n3": "3"}})
	lost := map[string]string{"n1": "a", "n2": "b", "n3": "c"}
	kept := map[string]string{"n1": "a", "n2": "d", "n3": "c"}
	forming := func(folder string, holds map[string]string) *trivetpb.HelloReply {
		return &trivetpb.HelloReply{Incarnation: folder, Forming: true, Folders: holds}
	}
	begun := func(folder string, with map[string]string) *trivetpb.HelloReply {
		return &trivetpb.HelloReply{Incarnation: folder, Folders: with}
	}
	f.heard("n3", f.asking(), forming("c", lost))
	asked := f.asking() // twice: n2 answered, lost its folder, and answered again
	f.heard("n2", asked, forming("d", kept))
	require.Equal(t, kept, f.told())
	f.heard("n2", asked, forming("b", lost)) // the first answer
	require.Equal(t, lost, f.told())
	require.False(t, f.decide())
	f.heard("n3", f.asking(), begun("c", kept))
	require.Equal(t, kept, f.told())
	require.False(t, f.decide())
	f.heard("n2", f.asking(), forming("d", kept))
	require.False(t, f.decide(), "n3 answered before")
	f.heard("n3", f.asking(), begun("c", kept))
	require.True(t, f.decide())
	f.heard("n2", f.asking(), forming("e", lost))
	require.Equal(t, kept, f.told(), "for ever")
}

// Who finds two that have begun with different folders begins with neither; one
// that has begun without this folder is no reason to begin.
func TestFirstMemberBetweenTwoThatHaveBegun(t *testing.T) {
	f := newFormation("n3", &storage{incarnation: "c", peers: map[string]string{"n1": "1", "n2": "2", "n3": "3"}})
	for range 3 {
		f.heard("n1", f.asking(), &trivetpb.HelloReply{Incarnation: "a", Folders: map[string]string{"n1": "a", "n2": "b", "n3": "c"}})
		f.heard("n2", f.asking(), &trivetpb.HelloReply{Incarnation: "e", Folders: map[string]string{"n1": "d", "n2": "e", "n3": "c"}})
		require.False(t, f.decide())
	}
	f = newFormation("n3", &storage{incarnation: "x", peers: map[string]string{"n1": "1", "n2": "2", "n3": "3"}})
	for _, id := range []string{"n1", "n2", "n1", "n2"} {
		f.heard(id, f.asking(), &trivetpb.HelloReply{Incarnation: map[string]string{"n1": "a", "n2": "b"}[id],
			Folders: map[string]string{"n1": "a", "n2": "b", "n3": "c"}})
		require.False(t, f.decide())
	}
}
