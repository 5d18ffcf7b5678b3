package httpapi

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
)

// ISOMillis is exported to the tests of the service.
var ISOMillis = isoMillis

// Operations returns what the main listener serves, as "METHOD path" with parameters in
// braces.
func Operations() []string {
	all := []string{"GET " + routeHealth}
	for route, methods := range allowed {
		for method := range strings.SplitSeq(methods, ", ") {
			all = append(all, method+" "+strings.Replace(route, ":mcpServerId", "{mcpServerId}", 1))
		}
	}
	return all
}

// Strangers is exported to the tests of token exchanges.
type Strangers struct{ strangers }

// NewStrangers returns those of whom most may be read.
func NewStrangers(most int) *Strangers { return &Strangers{strangers{most: most}} }

// Enter begins the reading of a body.
func (s *Strangers) Enter(r *http.Request) (ctx context.Context, leave func()) {
	return s.enter(&exchange{Request: r, w: httptest.NewRecorder()})
}
