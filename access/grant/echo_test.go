package grant_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/lockwood-kms/lockwood/access/grant"
)

// An endpoint that answers with the token itself, in what is not HTTP, is not quoted.
func TestAnEndpointThatEchoes(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if r, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
				_, _ = io.WriteString(c, r.FormValue("refresh_token")+"\r\n\r\n")
			}
			_ = c.Close()
		}
	}()
	a := grant.NewClient(grant.Options{Endpoints: local}).Do(t.Context(), &grant.Request{TokenEndpoint: "http://" + l.Addr().String(), RefreshToken: "FAKE-rt"}, may)
	if a.Err == nil || strings.Contains(fmt.Sprintf("%v %+v", a.Err, a.Err), "FAKE") {
		t.Errorf("%v", a.Err)
	}
}
