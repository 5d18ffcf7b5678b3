package core_test

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/lockwood-kms/lockwood/core"
)

const secretText = "FAKE-s3cret-value"

// holder is how secrets stand in the types of this project.
type holder struct {
	Text    core.Secret
	Pointer *core.Secret
	Bytes   core.SecretBytes
	Nested  struct{ List []core.Secret }
	Map     map[string]core.SecretBytes
	Any     any
	DataKey core.DataKey
}

type xmlHolder struct {
	Text  core.Secret
	Attr  core.Secret `xml:",attr"`
	Bytes core.SecretBytes
}

func newHolder() holder {
	s, b := core.Secret(secretText), core.SecretBytes(secretText)
	h := holder{Text: s, Pointer: &s, Bytes: b, Map: map[string]core.SecretBytes{"k": b}, Any: s, DataKey: core.DataKey{Plaintext: b}}
	h.Nested.List = []core.Secret{s}
	return h
}

// shows fails if text holds the secret in any of the ways that a formatter or an
// encoder may write it.
func shows(t *testing.T, how, text string) {
	t.Helper()
	raw := []byte(secretText)
	encoded, err := json.Marshal(raw) // base64
	if err != nil {
		t.Fatal(err)
	}
	for _, form := range []string{
		secretText, fmt.Sprintf("%x", raw), fmt.Sprintf("%X", raw), fmt.Sprintf("% x", raw), fmt.Sprint(raw),
		fmt.Sprintf("%b", raw), fmt.Sprintf("%o", raw), fmt.Sprintf("%U", raw), fmt.Sprintf("%#v", raw), strings.Trim(string(encoded), `"`),
	} {
		if strings.Contains(text, strings.Trim(form, "[]")) {
			t.Errorf("%s shows the secret: %s", how, text)
		}
	}
}

func TestSecretsAreNotFormatted(t *testing.T) {
	h := newHolder()
	values := map[string]any{
		"Secret": h.Text, "*Secret": h.Pointer, "SecretBytes": h.Bytes, "*SecretBytes": &h.Bytes,
		"struct": h, "*struct": &h, "slice": []core.Secret{h.Text}, "array": [1]core.Secret{h.Text},
		"map": h.Map, "map key": map[core.Secret]int{h.Text: 1}, "DataKey": h.DataKey, "*DataKey": &h.DataKey,
	}
	for name, v := range values {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%#q", "%x", "%X", "% x", "%d", "%o", "%b", "%c", "%U", "%t", "%e", "%T", "%z", "%5.3v"} {
			shows(t, verb+" of "+name, fmt.Sprintf(verb, v))
		}
		shows(t, "Errorf of "+name, fmt.Errorf("doing: %v", v).Error())
		shows(t, "Sprint of "+name, fmt.Sprint(v))
	}
	if got := fmt.Sprintf("%v|%x|%d", h.Text, h.Text, h.Bytes); got != "[redacted]|[redacted]|[redacted]" {
		t.Errorf("formatted = %s", got)
	}
	if got := h.Text.String() + h.Text.GoString() + h.Bytes.String() + h.Bytes.GoString(); got != strings.Repeat("[redacted]", 4) {
		t.Errorf("String and GoString = %s", got)
	}
}

func TestSecretsAreNotLogged(t *testing.T) {
	h := newHolder()
	var out bytes.Buffer
	opts := &slog.HandlerOptions{Level: slog.LevelDebug}
	for name, handler := range map[string]slog.Handler{"text": slog.NewTextHandler(&out, opts), "JSON": slog.NewJSONHandler(&out, opts)} {
		out.Reset()
		log := slog.New(handler).With("with", h.Text)
		log.Info("m", "text", h.Text, "pointer", h.Pointer, "bytes", h.Bytes, "struct", h, "struct_pointer", &h, "data_key", h.DataKey)
		log.Debug("m", slog.Group("g", slog.Any("text", h.Text)), slog.Any("list", h.Nested.List))
		shows(t, "slog as "+name, out.String())
		if !strings.Contains(out.String(), "[redacted]") {
			t.Errorf("slog as %s: %s", name, out.String())
		}
	}
}

func TestSecretsAreNotEncoded(t *testing.T) {
	h := newHolder()
	text, err := json.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	shows(t, "JSON", string(text))
	text, err = xml.Marshal(xmlHolder{h.Text, h.Text, h.Bytes})
	if err != nil {
		t.Fatal(err)
	}
	shows(t, "XML", string(text))
}

// TestSecretsAreUsable asserts that a conversion, and nothing else, yields the
// value, and that a secret can be decoded.
func TestSecretsAreUsable(t *testing.T) {
	h := newHolder()
	if string(h.Text) != secretText || string([]byte(h.Bytes)) != secretText {
		t.Error("the conversion does not yield the value")
	}
	var in struct{ Text core.Secret }
	if err := json.Unmarshal([]byte(`{"Text":"`+secretText+`"}`), &in); err != nil || string(in.Text) != secretText {
		t.Errorf("decoding: %v", err)
	}
}
