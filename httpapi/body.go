package httpapi

import (
	"io"
	"net/http"
	"strings"
	"unicode/utf8"

	"github.com/lockwood-kms/lockwood/core/envelope"
)

const (
	maxJSON = 1 << 20  // bytes of a JSON body, after decompression
	maxForm = 56 << 10 // bytes of a form body, after decompression

	// maxDrain is how much of a caller's oversized body is read and thrown away, so
	// that a client that writes before it reads gets to see the 413.
	maxDrain = 8 << 20

	// firstRead is how many bytes of a body are made room for before any has
	// come. A body that is longer gets more room as it comes.
	firstRead = 16 << 10
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
func parseBody(r *http.Request, kind bodyKind, c *claim) (*fields, *response) {
	switch kind {
	case bodyJSON:
		text, refused := readBody(r, c, maxJSON)
		if refused != nil {
			return nil, refused
		}
		f, err := parseJSON(text)
		if err != nil {
			return nil, &malformed
		}
		return f, nil
	case bodyForm:
		text, refused := readBody(r, c, maxForm)
		if refused != nil {
			return nil, refused
		}
		return parseForm(string(text)), nil
	default:
		return &fields{top: kindObject}, nil
	}
}

// readBody returns the decompressed body as UTF-8 without a byte order mark. It
// judges encoding and length, as far as the head tells them, before it reads. A
// compressed body may be long and yield nothing, so both sides are bounded.
func readBody(r *http.Request, c *claim, limit int64) ([]byte, *response) {
	encoding := strings.Join(r.Header["Content-Encoding"], ", ")
	switch {
	case !knownEncoding(encoding):
		return nil, &unknownCode
	case r.ContentLength > limit:
		drain(r)
		return nil, &tooLarge
	}
	plain := encoding == "" || encoding == "identity"
	cost := int64(bodyCost)
	if !plain {
		cost = compressedCost
	}
	room := int64(firstRead)
	if r.ContentLength >= 0 {
		room = min(room, r.ContentLength)
	}
	if c.wait(r.Context(), cost*(room+1)) != nil {
		return nil, &busy
	}
	text, refused := readAll(r.Body, make([]byte, 0, room+1), c, cost, limit)
	if refused == &tooLarge {
		drain(r)
	}
	if refused == nil && !plain {
		text, refused = decompress(r.Context(), text, encoding, c, limit)
	}
	if refused != nil {
		return nil, refused
	}
	if !utf8.Valid(text) {
		text = envelope.DecodeUTF8(text)
	}
	return withoutMark(text), nil
}

// readAll reads body into buf, whose room is claimed, and claims more at cost a
// byte as it grows. It reads at most limit bytes.
func readAll(body io.Reader, buf []byte, c *claim, cost, limit int64) ([]byte, *response) {
	for {
		if len(buf) == cap(buf) { // the end is seen where there is room for one byte more
			size := min(2*int64(cap(buf)), limit+1)
			if !c.grow(cost * (size - int64(cap(buf)))) {
				return nil, &busy
			}
			buf = append(make([]byte, 0, size), buf...)
		}
		n, err := body.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		switch {
		case int64(len(buf)) > limit:
			return nil, &tooLarge
		case err == io.EOF: // as io.ReadAll: a wrapped one is no end
			return buf, nil
		case err != nil:
			return nil, &unreadable
		}
	}
}

func withoutMark(text []byte) []byte {
	if len(text) >= 3 && string(text[:3]) == "\xef\xbb\xbf" {
		return text[3:]
	}
	return text
}

// drain reads on behind the limit, unless the client waits for leave to send.
func drain(r *http.Request) {
	if r.Header.Get("Expect") == "" {
		_, _ = io.CopyN(io.Discard, r.Body, maxDrain)
	}
}
