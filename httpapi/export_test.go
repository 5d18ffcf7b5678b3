package httpapi

import "strings"

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
