package store

import "trivet/trivetpb"

// CheckCommand is Check for a whole command as a caller sends it: it refuses
// what can be refused without looking at the state, before it is proposed; nil
// means that the command is fine. Markers and Expire, which only leaders
// propose, are refused. The identity may be missing. A command that it lets
// through never makes Apply return ErrUnknownCommand.
func CheckCommand(c *trivetpb.Command, l Limits) *trivetpb.Problem {
	if err := knownCommand(c); err != nil {
		return problemf(trivetpb.Code_BAD_REQUEST, "%v", err)
	}
	return nil
}
