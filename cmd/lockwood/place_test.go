package main

import (
	"net/url"
	"strings"
	"testing"
)

// The start says which database it uses, and never the password.
func TestTheStartTellsThePlace(t *testing.T) {
	t.Parallel()
	eachDatabase(t, func(t *testing.T, d *testDatabase) {
		log := serve(t, d.env).ready(t).log.String()
		want := []string{`"driver":"sqlite"`, `"path":"` + strings.TrimPrefix(d.url, "sqlite:") + `"`}
		if d.pg != nil {
			u, err := url.Parse(d.url)
			if err != nil {
				t.Fatal(err)
			}
			want = []string{`"driver":"postgres"`, `"database":"` + u.Path[1:] + `"`, `"schema":"forest"`, `:` + u.Port()}
			if password, set := u.User.Password(); set && strings.Contains(log, password) {
				t.Error("the log holds the password")
			}
		}
		for line := range strings.Lines(log) {
			if strings.Contains(line, "the database in use") {
				for _, w := range want {
					if !strings.Contains(line, w) {
						t.Errorf("%s does not say %s", line, w)
					}
				}
				return
			}
		}
		t.Errorf("the start does not tell:\n%s", log)
	})
	s := serve(t, []string{"FOREST_AUTH_SECRET=" + testAuthSecret, "DATABASE_URL="})
	if log := s.ready(t).log.String(); !strings.Contains(log, s.cmd.Dir+"/lockwood.db") || !strings.Contains(log, "DATABASE_URL is set and empty") {
		t.Errorf("with an empty DATABASE_URL the start does not say that a file is used:\n%s", log)
	}
}
