// Package trivetpb holds Trivet's one schema, trivet.proto, and the code that
// `make generate` makes of it: the commands of the replicated log, the records
// of a snapshot, the protobuf form of /v1/batch and the messages of the peer
// port.
//
// It also holds the one table of error codes (codes.go), which the server
// reads from code to status and the client from name to code.
//
// Ownership: messages alias nothing, but for those of a Decoder (decoder.go). The
// generated UnmarshalVT copies bytes fields, so a message stays good when the buffer
// it was read from is used again.
package trivetpb
