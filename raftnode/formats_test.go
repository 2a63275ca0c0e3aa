package raftnode

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"trivet/trivetpb"
)

// What members write and say, as bytes that never change: ARCHITECTURE.md,
// Compatibility. The state's formats are in package store.

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	require.NoError(t, err)
	return b
}

func TestEntryMetaIsGolden(t *testing.T) {
	const golden = "011dd949f900000000000000010203040506070809000000000000000a"
	m := entryMeta{term: 1, proposer: 0x0203040506070809, seq: 10}
	require.Equal(t, golden, hex.EncodeToString(m.encode([]byte("data"))))
	got, err := decodeEntryMeta(&raft.Log{Data: []byte("data"), Extensions: unhex(t, golden)})
	require.NoError(t, err)
	require.Equal(t, m, got)
}

// A member that is sent an entry of a later format stops: to refuse it and go on
// would be to fall behind in silence.
func TestEntryOfALaterFormatStops(t *testing.T) {
	g, failed := guarded(newSimDisk())
	l := entryOf(1, 1, 1, "data")
	l.Extensions[0] = 2
	err := g.StoreLog(l)
	require.ErrorIs(t, err, errMetaVersion)
	require.ErrorContains(t, err, "entry 1 of term 1, not stored: is of a format that this version does not know: a newer one wrote it (format 2; this version knows 1)")
	require.ErrorIs(t, *failed, errMetaVersion)
}

const (
	goldenHello = "0801120263311a026e3222026e31a2010430613162a80105b00107ba0109686f73743a37313731c00101c80106"
	goldenReply = "0a036e6179a00102a80109b2010430633164b80103c00101d2010a0a026e31120430633164d80101"
	// Of a version whose members remembered whom they had met, and told (field 25).
	earlierHello = "0801120263311a026e3222026e31a2010430613162a80105b00107ba0109686f73743a37313731c00101"
	earlierReply = "0a036e6179a00102a80109b2010430633164b80103c00101c80101"
)

func TestHandshakeIsGolden(t *testing.T) {
	for _, c := range []struct {
		name, golden string
		m            interface {
			proto.Message
			vtMessage
		}
		empty interface {
			proto.Message
			vtMessage
		}
	}{
		{"hello", goldenHello, &trivetpb.Hello{
			Protocol: 1, ClusterId: "c1", From: "n2", To: "n1", Incarnation: "0a1b", JoinedAt: 5, ConfigIndex: 7,
			Address: "host:7171", Forming: true, Level: 6,
		}, &trivetpb.Hello{}},
		{"reply", goldenReply, &trivetpb.HelloReply{
			Refused: "nay", Code: trivetpb.HelloReply_OTHER_FOLDER, ConfigIndex: 9, Incarnation: "0c1d", JoinedAt: 3, Forming: true,
			Folders: map[string]string{"n1": "0c1d"}, Named: true,
		}, &trivetpb.HelloReply{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, err := c.m.MarshalVT()
			require.NoError(t, err)
			require.Equal(t, c.golden, hex.EncodeToString(b))
			require.NoError(t, c.empty.UnmarshalVT(unhex(t, c.golden)))
			require.True(t, proto.Equal(c.m, c.empty))
			fields := c.m.ProtoReflect().Descriptor().Fields()
			for i := range fields.Len() {
				require.True(t, c.m.ProtoReflect().Has(fields.Get(i)), "%s is not in the golden bytes", fields.Get(i).Name())
			}
		})
	}
}

// What a configuration is in the log and in snapshots: raft's own encoding, in
// which a folder goes with the address. One of a version that knew none reads as
// what it was.
func TestConfigurationIsGolden(t *testing.T) {
	const (
		golden = "81a7536572766572739383a741646472657373ae686f73743a373137312330613162a24944a26e31a853756666726167650083a741646472657373af5b3a3a315d3a373137312330633164a24944a26e32a853756666726167650183a741646472657373a9682373743a37313731a24944a26e33a8537566667261676500"
		older  = "81a7536572766572739183a741646472657373a9686f73743a37313731a24944a26e31a8537566667261676500"
	)
	conf := raft.Configuration{Servers: []raft.Server{
		{ID: "n1", Address: serverAddress("host:7171", "0a1b")},
		{ID: "n2", Address: serverAddress("[::1]:7171", "0c1d"), Suffrage: raft.Nonvoter},
		{ID: "n3", Address: serverAddress("h#st:7171", "")},
	}}
	require.Equal(t, golden, hex.EncodeToString(raft.EncodeConfiguration(conf)))
	got := raft.DecodeConfiguration(unhex(t, golden))
	require.Equal(t, conf, got)
	for i, want := range [][2]string{{"host:7171", "0a1b"}, {"[::1]:7171", "0c1d"}, {"h#st:7171", ""}} {
		require.Equal(t, want[0], peerOf(got.Servers[i]))
		require.Equal(t, want[1], folderOf(got.Servers[i]))
	}
	require.Equal(t, map[string]string{"n1": "0a1b", "n2": "0c1d"}, foldersOf(got))

	got = raft.DecodeConfiguration(unhex(t, older))
	require.Equal(t, "host:7171", peerOf(got.Servers[0]))
	require.Nil(t, foldersOf(got))
}

// Whatever an address is, its folder is found again, and none is found in it that
// is not there.
func FuzzServerAddress(f *testing.F) {
	f.Add("host:7171", "0a1b")
	f.Add("a#b:1", "")
	f.Add("[fe80::1%eth#0]:7171", "0")
	f.Fuzz(func(t *testing.T, peer, folder string) {
		if !isAddress(peer) || folder != "" && !folderPattern.MatchString(folder) {
			return
		}
		gotPeer, gotFolder := splitAddress(serverAddress(peer, folder))
		require.Equal(t, peer, gotPeer)
		require.Equal(t, folder, gotFolder)
	})
}

// What an earlier version says is what it was, and says nothing of folders.
func TestHandshakeWithAnEarlierVersion(t *testing.T) {
	var h trivetpb.Hello
	require.NoError(t, h.UnmarshalVT(unhex(t, earlierHello)))
	require.Equal(t, "0a1b", h.Incarnation)
	require.True(t, h.Forming)
	require.Zero(t, h.Level)
	var r trivetpb.HelloReply
	require.NoError(t, r.UnmarshalVT(unhex(t, earlierReply)))
	require.Equal(t, "0c1d", r.Incarnation)
	require.Empty(t, r.Folders)
	require.False(t, r.Named)
}

// greet says a hello to member n1 of cluster c1 and returns its answer.
func greet(t *testing.T, hello []byte) (*trivetpb.HelloReply, error) {
	t.Helper()
	p := newPeerPort(nil, "c1", "n1", testLog(t))
	p.address = func(to string) (string, error) { return simAddr(to), nil }
	a, c := net.Pipe()
	defer a.Close()
	p.conns[c] = peerConn{}
	answered := make(chan error, 1)
	go func() {
		_, _, err := p.answer(c)
		answered <- err
	}()
	b := binary.BigEndian.AppendUint16([]byte{streamPeer}, uint16(len(hello)))
	_, err := a.Write(append(b, hello...))
	require.NoError(t, err)
	reply := new(trivetpb.HelloReply)
	require.NoError(t, readHello(a, reply))
	return reply, <-answered
}

// A member of a later version that says more is let in; one that speaks another
// protocol is refused, and told both numbers.
func TestHandshakeWithALaterVersion(t *testing.T) {
	reply, err := greet(t, unhex(t, goldenHello))
	require.NoError(t, err)
	require.Empty(t, reply.Refused)
	reply, err = greet(t, append(unhex(t, goldenHello), 0xfa, 0x06, 3, 'n', 'e', 'w')) // field 111
	require.NoError(t, err)
	require.Empty(t, reply.Refused)
	later := unhex(t, goldenHello)
	later[1] = 2
	reply, err = greet(t, later)
	require.Error(t, err)
	require.Equal(t, "member n1 speaks peer protocol 1, not 2", reply.Refused)

	// And the other way round: what the answer says more is passed over.
	var r trivetpb.HelloReply
	require.NoError(t, r.UnmarshalVT(append(unhex(t, goldenReply), 0xfa, 0x06, 3, 'n', 'e', 'w')))
	require.Equal(t, "nay", r.Refused)
}

// A request of a later version that this one does not know gets an answer
// without content, and the connection goes on: its asker knows then that this
// member does not know it.
func TestPeerRequestOfALaterVersion(t *testing.T) {
	a, c := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		servePeer(context.Background(), nil, caller{id: "n2"}, c)
	}()
	for id := byte(1); id < 4; id++ {
		_, err := a.Write([]byte{0, 0, 0, 8, 0x08, id, 0xfa, 0x06, 3, 'n', 'e', 'w'})
		require.NoError(t, err)
		b := make([]byte, 6)
		_, err = io.ReadFull(a, b)
		require.NoError(t, err)
		require.Equal(t, []byte{0, 0, 0, 2, 0x08, id}, b)
	}
	a.Close()
	<-done
}

const goldenMember = `{
  "format": 1,
  "cluster": "5e1f",
  "id": "n1",
  "state": "joined",
  "log_store": "wal",
  "incarnation": "0a1b",
  "joined_at": 7,
  "peers": {
    "n1": "127.0.0.1:7171",
    "n2": "127.0.0.1:7172"
  },
  "folders": {
    "n1": "0a1b",
    "n2": "0c1d"
  },
  "becomes_voter": true
}
`

func TestMemberFilesAreGolden(t *testing.T) {
	d := &dataDir{path: t.TempDir()}
	read := func(name string) string {
		b, err := os.ReadFile(filepath.Join(d.path, name))
		require.NoError(t, err)
		return string(b)
	}
	write := func(name, text string) {
		require.NoError(t, os.WriteFile(filepath.Join(d.path, name), []byte(text), 0o600))
	}
	id := &identity{
		Format: 1, Cluster: "5e1f", ID: "n1", State: stateJoined, LogStore: LogStoreWAL, Incarnation: "0a1b", JoinedAt: 7,
		Peers: map[string]string{"n1": "127.0.0.1:7171", "n2": "127.0.0.1:7172"}, BecomesVoter: true,
		Folders: map[string]string{"n1": "0a1b", "n2": "0c1d"},
	}
	require.NoError(t, d.setIdentity(id))
	require.Equal(t, goldenMember, read("member.json"))
	got, err := d.identity()
	require.NoError(t, err)
	require.Equal(t, id, got)

	// A later version's: another format is refused by name, fields of the same one
	// are passed over.
	write("member.json", `{"format": 2, "id": "n1"}`)
	_, err = d.identity()
	require.EqualError(t, err, filepath.Join(d.path, "member.json")+": the data folder has format 2; this version knows 1")
	write("member.json", `{"format": 1, "later": [1], `+goldenMember[len("{\n  \"format\": 1,\n"):])
	got, err = d.identity()
	require.NoError(t, err)
	require.Equal(t, id, got)
}
