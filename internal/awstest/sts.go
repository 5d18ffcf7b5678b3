package awstest

import (
	"encoding/xml"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
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
		fault = invalidRole(form)
	}
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

var (
	rolePattern    = pattern(`^arn:aws[a-z-]*:iam::[0-9]{12}:role/[\w+=,.@/-]{1,512}$`)
	sessionPattern = pattern(`^[\w+=,.@-]{2,64}$`)
	externalID     = pattern(`^[\w+=,.@:/-]{2,1000}$`)
)

// pattern compiles an expression when it is first needed: this package is in test
// binaries that start themselves a thousand times.
func pattern(text string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(text) })
}

// invalidRole refuses what AssumeRole of the AWS STS API Reference does not take.
func invalidRole(form url.Values) *Fault {
	switch {
	case form.Get("Version") != "2011-06-15":
		return &Fault{Code: "InvalidAction", Message: "Could not find operation AssumeRole for the version"}
	case !rolePattern().MatchString(form.Get("RoleArn")), !sessionPattern().MatchString(form.Get("RoleSessionName")),
		form.Has("ExternalId") && !externalID().MatchString(form.Get("ExternalId")):
		return &Fault{Code: "ValidationError", Message: "1 validation error detected"}
	}
	return nil
}

// escaped is text within XML.
func escaped(s string) string {
	var b strings.Builder
	if err := xml.EscapeText(&b, []byte(s)); err != nil {
		return ""
	}
	return b.String()
}
