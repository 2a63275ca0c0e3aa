package raftnode

import (
	"regexp"
	"strings"

	"github.com/hashicorp/raft"

	"trivet/internal/mutant"
)

// A member whose data folder is gone has forgotten its vote and what it has
// acknowledged. Started over an empty folder under its old id, it could vote
// again in the same term, or help to elect a leader that lacks what it once
// helped to commit. So each data folder has a name of its own, its incarnation,
// drawn at random when it is made; members tell each other in the handshake; and
// the configuration says which folder of each id is the member. It comes with
// every entry and every snapshot that makes a member one, so nobody can know of
// a member without its folder, nor of a removal and an addition of its id without
// the new one.
//
// An acknowledgement or a vote is counted by a configuration, and only from the
// folder that this one has (admission.go). Then the folder is a part of the
// member's name as far as Raft is concerned, and what Raft proves of servers that
// lose nothing holds: a folder that was replaced is another server, that was
// removed, and the one in its place a new one, that was added.
//
// raft has no room for that in a server but its address, which it passes on, and
// compares, and does not use: this program finds the address of an id by itself
// (transport.go). So a configuration's address is
//
//	HOST:PORT             of a member without a known folder
//	HOST:PORT#FOLDER      of any other; FOLDER is 1 to 64 of 0-9, a-z, A-Z
//
// A port is a number, so that there is a '#' behind the last ':' in the second
// form alone. raft keeps addresses apart as it sees them, with their folders; that
// two members do not have the same HOST:PORT is seen to in memberchange.go.
//
// What has no folder is a member that somebody added before it ever ran, which
// does not vote (it gets its folder when it asks to be let in, and is promoted
// after that), and all of a configuration of a version before there were folders
// in it. Those cannot take an address with a folder for one, so nothing writes
// folders before the state has levelFolders; the first members of a new cluster
// tell each other that they know it (formation.go). From that level on each member
// that has no folder asks to have its own written down (settle.go). Until then any
// folder counts for it that was let in no later than this member knows
// (errLaterFolder). That is less than a named one gives: who upgrades from such a
// version is not to start removed folders again meanwhile. A wiped one is safe all
// the same: it is one of the first of a new cluster or one that joins, and neither
// takes part before a configuration has it.

// levelFolders is the level (level.go) from which on configurations have the
// folders of their members.
const levelFolders = 1

// folderPattern is what an incarnation looks like; this version's are 16 of
// 0-9a-f.
var folderPattern = regexp.MustCompile(`^[0-9a-zA-Z]{1,64}$`)

// serverAddress is what a configuration has for a member; an empty folder is none.
func serverAddress(peer, folder string) raft.ServerAddress {
	if folder == "" {
		return raft.ServerAddress(peer)
	}
	return raft.ServerAddress(peer + "#" + folder)
}

// peerOf is a server's peer address.
func peerOf(s raft.Server) string {
	peer, _ := splitAddress(s.Address)
	return peer
}

// folderOf is the folder that a server is, "" where that is not known.
func folderOf(s raft.Server) string {
	_, folder := splitAddress(s.Address)
	return folder
}

func splitAddress(a raft.ServerAddress) (peer, folder string) {
	peer = string(a)
	if i := strings.LastIndexByte(peer, '#'); i > strings.LastIndexByte(peer, ':') && folderPattern.MatchString(peer[i+1:]) {
		return peer[:i], peer[i+1:]
	}
	return peer, ""
}

// foldersOf are the folders of a configuration, nil where it has none.
func foldersOf(conf raft.Configuration) map[string]string {
	var folders map[string]string
	for _, s := range conf.Servers {
		if folder := folderOf(s); folder != "" {
			if folders == nil {
				folders = map[string]string{}
			}
			folders[string(s.ID)] = folder
		}
	}
	return folders
}

// isFolder says whether a server of a configuration is a member's folder.
func isFolder(s raft.Server, folder string) bool {
	of := folderOf(s)
	return of == "" || of == folder || mutant.On("any-folder")
}

// hasFolder says whether a configuration has a member with this folder.
func hasFolder(conf raft.Configuration, id, folder string) bool {
	s, ok := serverOf(conf, id)
	return ok && isFolder(s, folder)
}
