package httpapi

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"io"
	"net/http"
	"strings"
	"unicode/utf8"

	"github.com/andybalholm/brotli"

	"github.com/lockwood-kms/lockwood/core/envelope"
)

const (
	maxJSON = 1 << 20  // bytes of a JSON body, after decompression
	maxForm = 56 << 10 // bytes of a form body, after decompression

	// maxDrain is how much of an oversized body is read and thrown away, so that
	// a client that writes before it reads gets to see the 413.
	maxDrain = 8 << 20
)

// bodyKind is what a Content-Type makes of a body.
type bodyKind int

const (
	bodyOther bodyKind = iota // not looked at: the same as an empty body
	bodyJSON
	bodyForm
)

var bodyKinds = map[string]bodyKind{
	"application/json":                  bodyJSON,
	"application/json-patch+json":       bodyJSON,
	"application/vnd.api+json":          bodyJSON,
	"application/csp-report":            bodyJSON,
	"application/reports+json":          bodyJSON,
	"application/scim+json":             bodyJSON,
	"application/x-www-form-urlencoded": bodyForm,
}

// kindOf reads a Content-Type; parameters, the charset among them, do not count.
func kindOf(contentType string) bodyKind {
	if kind, ok := bodyKinds[contentType]; ok {
		return kind
	}
	mediaType, _, _ := strings.Cut(contentType, ";")
	return bodyKinds[strings.ToLower(strings.Trim(mediaType, " \t"))]
}

// parseBody reads the body of a deposit. It returns the response to a body that
// cannot be read, and does not judge what the fields hold.
func parseBody(r *http.Request) (*fields, *response) {
	kind := kindOf(r.Header.Get("Content-Type"))
	switch kind {
	case bodyJSON:
		text, refused := readBody(r, maxJSON)
		if refused != nil {
			return nil, refused
		}
		f, err := parseJSON(text)
		if err != nil {
			return nil, &malformed
		}
		return f, nil
	case bodyForm:
		text, refused := readBody(r, maxForm)
		if refused != nil {
			return nil, refused
		}
		return parseForm(string(text)), nil
	default:
		return &fields{top: kindObject}, nil
	}
}

// readBody returns the decompressed body as UTF-8 without a byte order mark.
func readBody(r *http.Request, limit int64) ([]byte, *response) {
	body, refused := decoded(r, limit)
	if refused != nil {
		return nil, refused
	}
	var buf bytes.Buffer
	buf.Grow(int(max(0, min(r.ContentLength, 64<<10))) + bytes.MinRead)
	n, err := buf.ReadFrom(io.LimitReader(body, limit+1))
	switch {
	case n > limit:
		drain(r)
		return nil, &tooLarge
	case err != nil:
		return nil, &unreadable
	}
	text := buf.Bytes()
	if !utf8.Valid(text) {
		text = envelope.DecodeUTF8(text)
	}
	return bytes.TrimPrefix(text, []byte("\xef\xbb\xbf")), nil
}

// decoded returns a reader that undoes the content encoding. Encodings are named
// in lower case and not combined, as upstream has it.
func decoded(r *http.Request, limit int64) (io.Reader, *response) {
	encoding := strings.Join(r.Header["Content-Encoding"], ", ")
	if encoding == "" || encoding == "identity" {
		if r.ContentLength > limit {
			drain(r)
			return nil, &tooLarge
		}
		return r.Body, nil
	}
	// A compressed body may be long and yield nothing, so both sides are bounded.
	compressed := bufio.NewReader(io.LimitReader(r.Body, limit))
	switch encoding {
	case "gzip", "deflate":
		return inflate(compressed)
	case "br":
		return brotli.NewReader(compressed), nil
	}
	return nil, &unknownCode
}

// inflate tells gzip and zlib apart by their first bytes, whatever the encoding
// was called.
func inflate(compressed *bufio.Reader) (io.Reader, *response) {
	var (
		r   io.Reader
		err error
	)
	if magic, _ := compressed.Peek(2); bytes.Equal(magic, []byte{0x1f, 0x8b}) {
		r, err = gzip.NewReader(compressed)
	} else {
		r, err = zlib.NewReader(compressed)
	}
	if err != nil {
		return nil, &unreadable
	}
	return r, nil
}

// drain reads on behind the limit, unless the client waits for leave to send.
func drain(r *http.Request) {
	if r.Header.Get("Expect") == "" {
		_, _ = io.CopyN(io.Discard, r.Body, maxDrain)
	}
}
