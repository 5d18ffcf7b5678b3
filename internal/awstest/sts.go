package awstest

import (
	"encoding/xml"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// serveSTS answers AssumeRole, the query protocol of STS. Its credentials have the
// access key "ASIA" and the number of the call.
func (s *Server) serveSTS(w http.ResponseWriter, r *http.Request, body []byte) {
	form, err := url.ParseQuery(string(body))
	if err != nil || form.Get("Action") != "AssumeRole" {
		http.Error(w, "not implemented", http.StatusNotImplemented)
		return
	}
	_, fault := s.authenticate(r)
	if fault == nil {
		fault = s.fault("AssumeRole")
	}
	if s.Requests != nil {
		r.Form = form
		if s.Requests(w, r, "AssumeRole") {
			return
		}
	}
	w.Header().Set("Content-Type", "text/xml")
	if fault != nil {
		w.WriteHeader(max(fault.Status, http.StatusForbidden))
		_, _ = fmt.Fprintf(w, `<ErrorResponse><Error><Type>Sender</Type><Code>%s</Code><Message>%s</Message></Error><RequestId>1</RequestId></ErrorResponse>`, fault.Code, escaped(fault.Message))
		return
	}
	s.mu.Lock()
	s.calls["AssumeRole"]++
	n := s.calls["AssumeRole"]
	s.mu.Unlock()
	_, _ = fmt.Fprintf(w, `<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult><Credentials>
<AccessKeyId>ASIA%d</AccessKeyId><SecretAccessKey>made-up-secret-of-40-characters-000000000</SecretAccessKey><SessionToken>made-up</SessionToken><Expiration>%s</Expiration>
</Credentials></AssumeRoleResult></AssumeRoleResponse>`, n, time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
}

// escaped is text within XML.
func escaped(s string) string {
	var b strings.Builder
	if err := xml.EscapeText(&b, []byte(s)); err != nil {
		return ""
	}
	return b.String()
}
