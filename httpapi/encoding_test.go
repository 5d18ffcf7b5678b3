package httpapi

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"

	"github.com/andybalholm/brotli"
)

// TestWindowBits compares what is read from the first byte of a stream with the
// window that the encoder was told to use, and with the decoder's mind.
func TestWindowBits(t *testing.T) {
	for bits := 10; bits <= 24; bits++ {
		var b bytes.Buffer
		w := brotli.NewWriterOptions(&b, brotli.WriterOptions{Quality: 5, LGWin: bits})
		_, err := w.Write(bytes.Repeat([]byte("0123456789abcdef"), 1<<12))
		if err != nil || w.Close() != nil {
			t.Fatal(err)
		}
		if got := windowBits(b.Bytes()[0]); got != bits {
			t.Errorf("a window of %d bits is read as one of %d", bits, got)
		}
	}
	for first := range 256 {
		stream := append([]byte{byte(first)}, make([]byte, 8)...)
		_, err := io.ReadAll(brotli.NewReader(bytes.NewReader(stream)))
		bits := windowBits(byte(first))
		if bits < 10 || bits > 30 || bits > 24 && err == nil {
			t.Errorf("first byte %#x: %d bits, the decoder says %v", first, bits, err)
		}
	}
}

// FuzzReadBody holds that whatever a body is, in whatever encoding, no more of it is
// kept than may be, no more memory is held than was claimed, and all of it is given
// back.
func FuzzReadBody(f *testing.F) {
	encodings := []string{"", "gzip", "deflate", "br"}
	for _, encoding := range encodings {
		for text := range bodies {
			f.Add([]byte(text), encoding)
		}
	}
	for _, bits := range []int{10, 16, 22, 24} {
		var b bytes.Buffer
		w := brotli.NewWriterOptions(&b, brotli.WriterOptions{Quality: 5, LGWin: bits})
		_, _ = w.Write(bytes.Repeat([]byte(`{"scopes":"a"}`), 1<<17))
		_ = w.Close()
		f.Add(b.Bytes(), "br")
	}
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	_, _ = w.Write(make([]byte, 2<<20))
	_ = w.Close()
	f.Add(z.Bytes(), "gzip")
	f.Fuzz(func(t *testing.T, body []byte, encoding string) {
		if !slices.Contains(encodings, encoding) {
			return
		}
		s := newShares(0, 1)
		c := s.enter(1)
		r := httptest.NewRequest(http.MethodPost, "/", bytes.NewReader(body))
		if encoding != "" {
			r.Header.Set("Content-Encoding", encoding)
		}
		text, refused := readBody(r, c, maxForm)
		if len(text) > 3*maxForm || (text != nil) == (refused != nil) && refused != nil {
			t.Fatalf("%d bytes, refused: %v", len(text), refused)
		}
		if refused == &busy {
			t.Fatal("one body of the largest size needs more than the share of a user")
		}
		c.leave()
		if !s.all.TryAcquire(leastShare) {
			t.Fatal("memory is not given back")
		}
	})
}
