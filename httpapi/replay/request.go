package replay

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/andybalholm/brotli"
)

// wire returns the bytes of the request.
func (e *Exchange) wire() ([]byte, error) {
	if e.Request.Raw != "" {
		return []byte(e.Request.Raw), nil
	}
	body, err := e.body()
	if err != nil {
		return nil, fmt.Errorf("building body: %w", err)
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: replay\r\nConnection: close\r\n", e.Request.Method, e.Request.Path)
	framed := false
	for _, name := range slices.Sorted(maps.Keys(e.Request.Headers)) {
		fmt.Fprintf(&b, "%s: %s\r\n", name, e.Request.Headers[name])
		framed = framed || name == "content-length" || name == "transfer-encoding"
	}
	chunked := e.Request.Headers["transfer-encoding"] == "chunked"
	if !framed && (body != nil || e.Request.Method == http.MethodPost) {
		fmt.Fprintf(&b, "Content-Length: %d\r\n", len(body))
	}
	b.WriteString("\r\n")
	if chunked {
		writeChunks(&b, body)
	} else {
		b.Write(body)
	}
	return b.Bytes(), nil
}

func writeChunks(b *bytes.Buffer, body []byte) {
	for chunk := range slices.Chunk(body, 16<<10) {
		fmt.Fprintf(b, "%x\r\n%s\r\n", len(chunk), chunk)
	}
	b.WriteString("0\r\n\r\n")
}

// body returns the recorded body, or builds the one that was only described.
func (e *Exchange) body() ([]byte, error) {
	if e.Request.BodyDesc != "" {
		return e.described()
	}
	if len(e.Request.Body) == 0 || string(e.Request.Body) == "null" {
		return nil, nil
	}
	var text string
	if json.Unmarshal(e.Request.Body, &text) == nil {
		if strings.Contains(text, "…<") {
			return deposit(strings.Repeat("r", e.Row.LegacyLen-LegacyOverhead)), nil
		}
		return []byte(text), nil
	}
	var encoded struct{ Hex string }
	if err := json.Unmarshal(e.Request.Body, &encoded); err != nil {
		return nil, err
	}
	return hex.DecodeString(encoded.Hex)
}

var (
	sizeDesc     = regexp.MustCompile(`^(?:valid JSON of|chunked,) (\d+) bytes`)
	encodingDesc = regexp.MustCompile(`^(\S+) of the full valid body$`)
	nestingDesc  = regexp.MustCompile(`^\{"a": x(\d+) nested$`)
)

// described builds a body from its description.
func (e *Exchange) described() ([]byte, error) {
	desc := e.Request.BodyDesc
	switch m := sizeDesc.FindStringSubmatch(desc); {
	case m != nil:
		size, err := strconv.Atoi(m[1])
		return deposit(strings.Repeat("r", size-len(deposit("")))), err
	case desc == "form body just over 56 KiB":
		return []byte("mcpServerId=srv-1&refreshToken=" + strings.Repeat("r", 56<<10)), nil
	}
	if m := encodingDesc.FindStringSubmatch(desc); m != nil {
		return encode(m[1], e.fullBody)
	}
	if m := nestingDesc.FindStringSubmatch(desc); m != nil {
		depth, err := strconv.Atoi(m[1])
		return []byte(strings.Repeat(`{"a":`, depth) + "1" + strings.Repeat("}", depth)), err
	}
	return nil, fmt.Errorf("no rule for %q", desc)
}

// deposit returns a minimal valid body.
func deposit(refreshToken string) []byte {
	return []byte(`{"mcpServerId":"srv-1","refreshToken":"` + refreshToken +
		`","tokenEndpoint":"https://idp.example.com/token"}`)
}

// encode applies a content encoding; one that is unknown leaves body as it is.
func encode(encoding, body string) ([]byte, error) {
	var (
		b bytes.Buffer
		w io.WriteCloser
	)
	switch encoding {
	case "gzip":
		w = gzip.NewWriter(&b)
	case "deflate":
		w = zlib.NewWriter(&b)
	case "br":
		w = brotli.NewWriter(&b)
	default:
		return []byte(body), nil
	}
	if _, err := io.WriteString(w, body); err != nil {
		return nil, err
	}
	err := w.Close()
	return b.Bytes(), err
}
