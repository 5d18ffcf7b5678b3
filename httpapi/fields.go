package httpapi

import (
	"bytes"
	"errors"
	"io"

	"github.com/go-json-experiment/json/jsontext"
)

// kind is the type of a JSON value, in the words of upstream's messages.
type kind string

// The zero kind, of a field that is not there, is kindUndefined.
const (
	kindUndefined kind = ""
	kindNull      kind = "null"
	kindBoolean   kind = "boolean"
	kindNumber    kind = "number"
	kindString    kind = "string"
	kindArray     kind = "array"
	kindObject    kind = "object"
)

func (k kind) String() string {
	if k == kindUndefined {
		return "undefined"
	}
	return string(k)
}

// value is the value of a field. Only that of a string is kept.
type value struct {
	kind kind
	text string
}

// fields is a body as it was sent: parsed, not judged.
type fields struct {
	top     kind // object or array
	unknown int  // how many fields a deposit does not have

	mcpServerID, refreshToken              value
	clientID, clientSecret                 value
	clientSecretExpiresAt                  value
	tokenEndpoint, tokenEndpointAuthMethod value
	scopes                                 value
}

// field returns the field with exactly that name, or nil.
func (f *fields) field(name string) *value {
	switch name {
	case "mcpServerId":
		return &f.mcpServerID
	case "refreshToken":
		return &f.refreshToken
	case "clientId":
		return &f.clientID
	case "clientSecret":
		return &f.clientSecret
	case "clientSecretExpiresAt":
		return &f.clientSecretExpiresAt
	case "tokenEndpoint":
		return &f.tokenEndpoint
	case "tokenEndpointAuthMethod":
		return &f.tokenEndpointAuthMethod
	case "scopes":
		return &f.scopes
	}
	return nil
}

var errJSON = errors.New("parsing body: malformed JSON")

// parseJSON parses a body. Names are case-sensitive, the last of duplicates
// counts, unpaired surrogates become U+FFFD; an empty body is an empty object. Its
// error is always errJSON, for a parser's own error quotes the text around it,
// which may be a token.
func parseJSON(text []byte) (*fields, error) {
	if len(text) == 0 {
		return &fields{top: kindObject}, nil
	}
	dec := jsontext.NewDecoder(bytes.NewBuffer(text),
		jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	f := new(fields)
	var err error
	switch dec.PeekKind() {
	case jsontext.KindBeginObject:
		f.top = kindObject
		err = f.readObject(dec)
	case jsontext.KindBeginArray:
		f.top = kindArray
		err = dec.SkipValue()
	default:
		return nil, errJSON
	}
	if err != nil {
		return nil, errJSON
	}
	if _, err := dec.ReadToken(); !errors.Is(err, io.EOF) {
		return nil, errJSON // text behind the value
	}
	return f, nil
}

func (f *fields) readObject(dec *jsontext.Decoder) error {
	if _, err := dec.ReadToken(); err != nil {
		return err
	}
	for dec.PeekKind() != jsontext.KindEndObject {
		name, err := dec.ReadToken()
		if err != nil {
			return err
		}
		known := f.field(name.String())
		if known == nil {
			f.unknown++
			known = new(value)
		}
		if err := known.read(dec); err != nil {
			return err
		}
	}
	_, err := dec.ReadToken()
	return err
}

// read reads the next JSON value.
func (v *value) read(dec *jsontext.Decoder) error {
	*v = value{kind: kindOfJSON(dec.PeekKind())}
	if v.kind != kindString {
		return dec.SkipValue()
	}
	token, err := dec.ReadToken()
	if err == nil {
		v.text = token.String()
	}
	return err
}

func kindOfJSON(k jsontext.Kind) kind {
	switch k {
	case jsontext.KindString:
		return kindString
	case jsontext.KindNumber:
		return kindNumber
	case jsontext.KindTrue, jsontext.KindFalse:
		return kindBoolean
	case jsontext.KindBeginArray:
		return kindArray
	case jsontext.KindBeginObject:
		return kindObject
	default:
		return kindNull
	}
}

// quote returns s as a JSON string.
func quote(s string) string {
	b, _ := jsontext.AppendQuote(nil, s) // its error is about invalid UTF-8, which it replaces
	return string(b)
}
