package hostile

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/andybalholm/brotli"
)

// form is a way to do harm over one connection.
type form struct {
	name string
	// parts are sent one after another, with a pause after each. Then the
	// connection is held until the server closes it, or for hold, and the next one
	// begins.
	parts []string
	pause time.Duration
	hold  time.Duration
	// requests is how many requests the parts hold, if it is not one.
	requests int
}

// idle is the form that others are compared with: a connection that is open.
const idle = "idle connections"

// held is how long a connection is kept that is held open.
const held = time.Hour

// forms returns all forms. token is empty, or a valid one that each request holds.
func forms(token string) ([]form, error) {
	gzipBomb, err := compress(func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) })
	if err != nil {
		return nil, err
	}
	brotliBomb, err := compress(func(w io.Writer) io.WriteCloser {
		return brotli.NewWriterOptions(w, brotli.WriterOptions{Quality: 5, LGWin: 22})
	})
	if err != nil {
		return nil, err
	}
	auth := ""
	if token != "" {
		auth = "Authorization: Bearer " + token + "\r\n"
	}
	post := func(length int, encoding, body string) string {
		return fmt.Sprintf("POST /mcp-oauth-credentials HTTP/1.1\r\nHost: x\r\n%sContent-Type: application/json\r\n%sContent-Length: %d\r\n\r\n%s",
			auth, encoding, length, body)
	}
	const br, gz = "Content-Encoding: br\r\n", "Content-Encoding: gzip\r\n"
	get := "GET /mcp-oauth-credentials HTTP/1.1\r\nHost: x\r\n" + auth + "\r\n"
	return []form{
		{name: idle, hold: held},
		{name: "brotli windows of 16 MiB", parts: []string{post(99, br, window(24)+"a")}, hold: held},
		{name: "brotli windows of 4 MiB", parts: []string{post(99, br, window(22)+"a")}, hold: held},
		{name: "brotli bombs", parts: []string{post(len(brotliBomb), br, brotliBomb)}},
		{name: "gzip bombs", parts: []string{post(len(gzipBomb), gz, gzipBomb)}},
		{name: "slow bodies", parts: slices.Insert(slow("a"), 0, post(1<<20, "", strings.Repeat(" ", 200<<10))), pause: time.Second, hold: held},
		{name: "slow heads", parts: slow("GET / HTTP/1.1\r\nHost: x\r\n" + auth + strings.Repeat("A: b\r\n", 1000)), pause: time.Second, hold: held},
		{name: "endless heads", parts: []string{"GET / HTTP/1.1\r\nHost: x\r\n" + auth + "A: " + strings.Repeat("a", 64<<10)}},
		{name: "pipelines", parts: []string{strings.Repeat(get, 50)}, requests: 50},
		{name: "unread lists", parts: []string{get, get, get, get}, hold: held, requests: 4},
	}, nil
}

// slow cuts text into parts of one byte.
func slow(text string) []string { return strings.Split(text, "") }

// bombSize is what a bomb decompresses to, in bytes.
const bombSize = 64 << 20

func compress(writer func(io.Writer) io.WriteCloser) (string, error) {
	var b bytes.Buffer
	w := writer(&b)
	chunk := make([]byte, 1<<20)
	for range bombSize / len(chunk) {
		if _, err := w.Write(chunk); err != nil {
			return "", err
		}
	}
	return b.String(), errors.Join(w.Close())
}

// window returns the first four bytes of a brotli stream (RFC 7932, section 9) that
// open a window of 2^bits bytes and announce as many: the size of the window, that
// this metablock is not the last, the number of bytes in six nibbles, and that they
// are not compressed.
func window(bits int) string {
	header := uint32(1) | uint32(bits-17)<<1 | 2<<5 | uint32(1<<bits-1)<<7 | 1<<31
	return string(binary.LittleEndian.AppendUint32(nil, header))
}
