package httpapi

import (
	_ "embed"
	"net/http"

	"trivet/trivetpb"
)

// openAPIDocument describes every resource there is; a test holds it to
// Server.resources.
//
//go:embed openapi.json
var openAPIDocument []byte

// openAPI serves GET /v1/openapi.json.
func (s *Server) openAPI(c *call) *trivetpb.Problem {
	c.answer(http.StatusOK, jsonType, openAPIDocument)
	return nil
}
