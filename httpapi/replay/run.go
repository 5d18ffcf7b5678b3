package replay

import (
	"errors"
	"fmt"
	"net/http"
	"reflect"
)

// Target is the server under test and its credentials.
type Target interface {
	// Prepare brings the server into the mode of e and returns the address to
	// send it to, or a reason to skip e.
	Prepare(e *Exchange) (addr, skip string, err error)
	// Seed stores a credential of the user's for the server.
	Seed(userID int64, mcpServerID string) error
	// Find returns the credential of the user for the server, or nil.
	Find(userID int64, mcpServerID string) (*Row, error)
}

// Observer is a Target that sees each exchange besides.
type Observer interface {
	// Observe gets the request of e as it was sent, and an answer to it: the server's, and
	// after it upstream's, if that is the same but for its headers. Its error is that of Run.
	Observe(e *Exchange, request []byte, status int, header http.Header, body []byte) error
}

// deleter is the user whose token the recorded DELETEs carry.
const deleter = 7

// Run replays e. It returns a reason if the target skips e, and an error for each
// way in which the server differs from the recording and should not, or does not
// and should.
func Run(e *Exchange, t Target) (skip string, err error) {
	addr, skip, err := t.Prepare(e)
	if err != nil || skip != "" {
		return skip, err
	}
	if err := e.seed(t); err != nil {
		return "", fmt.Errorf("seeding: %w", err)
	}
	got, err := e.send(addr)
	if err != nil {
		return "", err
	}
	want, err := e.recorded()
	if err != nil {
		return "", err
	}
	return "", errors.Join(e.compare(got, want), e.checkRow(got, t), e.checkDeleted(t), e.observe(got, want, t))
}

// observe shows both answers to a target that wants to see them.
func (e *Exchange) observe(got, want *answer, t Target) error {
	o, ok := t.(Observer)
	if !ok {
		return nil
	}
	request, err := e.wire()
	if err != nil {
		return err
	}
	err = o.Observe(e, request, got.status, got.header, got.body)
	if differenceOf(e) == nil {
		header := want.header.Clone()
		for _, name := range []string{"X-Request-Id", "Retry-After"} { // upstream has neither
			if value := got.header[name]; value != nil {
				header[name] = value
			}
		}
		err = errors.Join(err, o.Observe(e, request, want.status, header, want.body))
	}
	return err
}

// compare compares the response with upstream's, or with what a listed
// difference makes of it.
func (e *Exchange) compare(got, want *answer) error {
	d := differenceOf(e)
	if d != nil {
		return d.compare(got, want)
	}
	if got.status != want.status || !sameBody(got.body, want.body) {
		return fmt.Errorf("%d %s, recorded %d %s", got.status, got.body, want.status, want.body)
	}
	return sameHeaders(got.header, want.header)
}

// compare checks that the response differs, and in the way that is listed.
func (d *Difference) compare(got, want *answer) error {
	switch {
	case d.Status != 0 && got.status != d.Status || d.Status == 0 && got.status != want.status:
		return fmt.Errorf("difference %q: %d %s", d.Name, got.status, got.body)
	case got.status == want.status && sameBody(got.body, want.body):
		return fmt.Errorf("difference %q is listed and not there", d.Name)
	case d.RetryAfter && got.header.Get("Retry-After") == "":
		return fmt.Errorf("difference %q: no Retry-After", d.Name)
	case d.Body != "" && string(got.body) != d.Body || d.Body == "" && !d.AnyBody && !isErrorBody(got.body):
		return fmt.Errorf("difference %q: body %s", d.Name, got.body)
	}
	return nil
}

// checkRow compares what a deposit stored.
func (e *Exchange) checkRow(got *answer, t Target) error {
	if e.Row == nil {
		return nil
	}
	row, err := t.Find(e.Row.UserID, e.Row.MCPServerID)
	if err != nil {
		return err
	}
	if got.status != 200 {
		if row != nil {
			return errors.New("refused, and stored")
		}
		return nil
	}
	if !reflect.DeepEqual(row, e.Row) {
		return fmt.Errorf("stored %+v, recorded %+v", row, e.Row)
	}
	return nil
}

// seed stores what a DELETE is to find: the caller's credential, or another
// user's that has to stay.
func (e *Exchange) seed(t Target) error {
	switch id := e.deletedID(); {
	case id == "":
		return nil
	case *e.RowsLeft > 0:
		return t.Seed(deleter+1, id)
	default:
		return t.Seed(deleter, id)
	}
}

func (e *Exchange) checkDeleted(t Target) error {
	id := e.deletedID()
	if id == "" {
		return nil
	}
	user, left := int64(deleter), *e.RowsLeft > 0
	if left {
		user++
	}
	row, err := t.Find(user, id)
	if err == nil && (row != nil) != left {
		return fmt.Errorf("credential there: %t, recorded %t", row != nil, left)
	}
	return err
}

// deletedID returns the MCP server ID that a DELETE of which the effect was
// recorded names, or "".
func (e *Exchange) deletedID() string {
	switch {
	case e.RowsLeft == nil:
		return ""
	case e.StoredID != "":
		return e.StoredID
	default:
		return e.Request.Path[len("/mcp-oauth-credentials/"):]
	}
}
