package httpapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/credential/tokenendpoint"
)

// bodies are JSON bodies and whether they are well-formed.
var bodies = map[string]bool{
	"":                                  true,
	"{}":                                true,
	"[]":                                true,
	" \r\n\t{\"mcpServerId\":\"s\"} ":   true,
	`{"mcpServerId":"s","scopes":null}`: true,
	`{"a":{"b":[1,2.5e3,true,null,"\u00e9"]}}`: true,
	`[{"mcpServerId":"s"}]`:                    true,
	`{"mcpServerId":"a","mcpServerId":"b"}`:    true,
	`{"mcpServerId":"\ud800"}`:                 true,
	"   ":                                      false,
	`"x"`:                                      false,
	"5":                                        false,
	"true":                                     false,
	"null":                                     false,
	"{":                                        false,
	`{"mcpServerId":"s"`:                       false,
	`{"mcpServerId":NaN}`:                      false,
	`{"mcpServerId":"s"}x`:                     false,
	`{"mcpServerId":"s"}{}`:                    false,
	`{"mcpServerId":"s",}`:                     false,
	`{'mcpServerId':"s"}`:                      false,
	`{"mcpServerId":"\x"}`:                     false,
	"{\"mcpServerId\":\"a\nb\"}":               false,
	`{"mcpServerId":01}`:                       false,
	`{"a":1 "b":2}`:                            false,
	"\ufeff{}":                                 false, // the mark is dropped earlier
	strings.Repeat("[", 1000):                  false,
	`{/**/"mcpServerId":"s"}`:                  false,
	`{"refreshToken":"FAKE-SECRET" "clientId"}`: false,
}

func TestParseJSON(t *testing.T) {
	for text, want := range bodies {
		if _, err := parseJSON([]byte(text)); (err == nil) != want {
			t.Errorf("parseJSON(%q) = %v, want it to succeed: %t", text, err, want)
		}
	}
}

func TestParseJSONFields(t *testing.T) {
	f, err := parseJSON([]byte(`{"mcpServerId":"first","clientId":7,"mcpServerId":"a\ud800b","scopes":null,
		"clientSecret":[1],"MCPServerID":"other","tokenEndpoint":{"x":{}},"clientId":true}`))
	if err != nil {
		t.Fatal(err)
	}
	want := &fields{top: kindObject, unknown: 1,
		mcpServerID: value{kindString, "a\ufffdb"}, scopes: value{kind: kindNull}, clientSecret: value{kind: kindArray},
		tokenEndpoint: value{kind: kindObject}, clientID: value{kind: kindBoolean}}
	if !reflect.DeepEqual(f, want) {
		t.Errorf("got %+v, want %+v", f, want)
	}
}

// FuzzParseJSON compares the parser with encoding/json: they have to agree on
// what is well-formed, and on the fields.
func FuzzParseJSON(f *testing.F) {
	if len(bodies) == 0 {
		f.Fatal("no seeds")
	}
	for text := range bodies {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if !utf8.Valid(text) {
			text = envelope.DecodeUTF8(text)
		}
		got, err := parseJSON(text)
		trimmed := bytes.Trim(text, " \t\r\n")
		valid := len(text) == 0 || json.Valid(text) && (trimmed[0] == '{' || trimmed[0] == '[')
		if (err == nil) != valid {
			t.Fatalf("parseJSON(%q) = %v, want it to succeed: %t", text, err, valid)
		}
		if err != nil && !errors.Is(err, errJSON) {
			t.Fatalf("error %q, which may quote the body", err)
		}
		var object map[string]any
		if err != nil || json.Unmarshal(text, &object) != nil {
			return
		}
		for name, v := range object {
			field := got.field(name)
			if s, isText := v.(string); field != nil && isText && (field.kind != kindString || field.text != s) {
				t.Fatalf("%q: field %s is %+v, want %q", text, name, field, s)
			}
		}
	})
}

// forms are urlencoded bodies.
var forms = []string{
	"", "&", "=", "a", "=x", "mcpServerId=srv-1&refreshToken=t", "scopes=read+write", "scopes=a%20b%2Bc", "scopes=a%zz",
	"scopes=%ff", "scopes=a&scopes=b", "mcpServerId[]=x", "mcpServerId%3D=x", "a=b=c", "scopes", "%73copes=x",
}

func TestParseForm(t *testing.T) {
	f := parseForm("mcpServerId=a+b%2B%C3%A9&scopes=a&&scopes=b&clientId=100%&clientSecret&=x&mcpServerId[]=y&refreshToken=%ff")
	want := &fields{top: kindObject, unknown: 1,
		mcpServerID: value{kindString, "a b+\u00e9"}, scopes: value{kind: kindArray}, clientID: value{kindString, "100%"},
		clientSecret: value{kind: kindString}, refreshToken: value{kindString, "%ff"}}
	if !reflect.DeepEqual(f, want) {
		t.Errorf("got %+v, want %+v", f, want)
	}
}

// FuzzParseForm compares the parser with net/url where that accepts the body.
func FuzzParseForm(f *testing.F) {
	if len(forms) == 0 {
		f.Fatal("no seeds")
	}
	for _, text := range forms {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got := parseForm(text)
		values, err := url.ParseQuery(text)
		if err != nil {
			return
		}
		for name, vs := range values {
			field := got.field(name)
			switch {
			case field == nil || !utf8.ValidString(vs[0]):
			case len(vs) > 1 && field.kind != kindArray, len(vs) == 1 && *field != (value{kindString, vs[0]}):
				t.Fatalf("%q: field %s is %+v, want %q", text, name, *field, vs)
			}
		}
	})
}

func TestDepositIssues(t *testing.T) {
	const valid = `"mcpServerId":"s","refreshToken":"r","tokenEndpoint":"https://idp.example.com/"`
	emoji := strings.Repeat("\U0001f510", 127)
	for body, want := range map[string]string{
		"{" + valid + "}":                              "",
		"{" + valid + `,"scopes":""}`:                  "",
		"{" + valid + `,"clientId":"` + emoji + `x"}`:  "",
		"{" + valid + `,"clientId":"` + emoji + `xx"}`: "clientId: Too big: expected string to have <=255 characters",
		"{" + valid + `,"clientId":""}`:                "clientId: Too small: expected string to have >=1 characters",
		"{" + valid + `,"clientSecret":"x"}`:           "clientId: clientId is required when clientSecret is provided",
		"{" + valid + `,"userId":8}`:                   "body: Unrecognized key",
		"{" + valid + `,"a":1,"b\"":2}`:                "body: Unrecognized keys: 2",
		"{" + valid + `,"__proto__":{"x":1}}`:          "body: Unrecognized key",
		"{" + valid + `,"mcpServerId":"a\u0000"}`:      "mcpServerId: must not hold a NUL character",
		"{" + valid + `,"refreshToken":"a\u0000"}`:     "",
		"{" + valid + `,"tokenEndpointAuthMethod":7}`:  `tokenEndpointAuthMethod: Invalid option: expected one of "client_secret_basic"|"client_secret_post"|"none"`,
		"[]": "body: Invalid input: expected object, received array",
		"{" + valid + `,"tokenEndpoint":"https://127.1/` + strings.Repeat("a", 2048) + `"}`: "tokenEndpoint: Too big: expected string to have <=2048 characters",
	} {
		f, err := parseJSON([]byte(body))
		if err != nil {
			t.Fatal(err)
		}
		d, is := f.deposit(tokenendpoint.NewGuard(tokenendpoint.Options{}))
		if got := strings.Join(is, "; "); got != want || (d == nil) != (want != "") {
			t.Errorf("%.150s: issues %q, want %q", body, got, want)
		}
	}
}
