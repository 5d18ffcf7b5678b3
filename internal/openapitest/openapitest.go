// Package openapitest holds requests and answers against docs/openapi.yaml, so that
// the file is what the service does and not what somebody meant it to do. Tests hand
// it each exchange that they see anyway: those of the handlers, the recorded traffic
// of upstream, and those with whole instances. The file itself is judged by the rules
// of OpenAPI 3.1 when it is loaded.
//
// What the file says is held in both directions. An answer has to be one that the
// operation lists, headers and body included. A request that was served has to be one
// that the file admits, or else a client made from it would refuse to send what the
// service takes.
package openapitest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
)

// Document is an OpenAPI document that is valid. It is safe for concurrent use.
type Document struct {
	spec *openapi3.T
}

// Load reads the document at path. It returns an error if that breaks a rule of
// OpenAPI 3.1 or of JSON Schema 2020-12, or if an example breaks its schema.
func Load(path string) (*Document, error) {
	registerDecoders()
	loader := openapi3.NewLoader()
	spec, err := loader.LoadFromFile(path)
	if err != nil {
		return nil, fmt.Errorf("loading OpenAPI document: %w", err)
	}
	if !spec.IsOpenAPI31OrLater() {
		return nil, fmt.Errorf("loading OpenAPI document: it is of version %s", spec.OpenAPI)
	}
	if err := spec.Validate(loader.Context); err != nil {
		return nil, fmt.Errorf("validating OpenAPI document: %w", err)
	}
	return &Document{spec}, nil
}

// registerDecoders has the library read each type that the service takes for JSON, and
// forms as the service does.
var registerDecoders = sync.OnceFunc(func() {
	for _, contentType := range []string{"application/csp-report", "application/reports+json", "application/scim+json"} {
		openapi3filter.RegisterBodyDecoder(contentType, openapi3filter.RegisteredBodyDecoder("application/json"))
	}
	openapi3filter.RegisterBodyDecoder("application/x-www-form-urlencoded", decodeForm)
})

// decodeForm reads a form. The library's own decoder makes null of a list that is not there.
func decodeForm(body io.Reader, _ http.Header, schema *openapi3.SchemaRef, _ openapi3filter.EncodingFn) (any, error) {
	text, err := io.ReadAll(body)
	if err != nil {
		return nil, err
	}
	object := make(map[string]any)
	for name, values := range formValues(string(text)) {
		property := schema.Value.Properties[name]
		if len(values) == 1 && (property == nil || !property.Value.Type.Is("array")) {
			object[name] = values[0]
			continue
		}
		list := make([]any, len(values))
		for i, value := range values {
			list[i] = value
		}
		object[name] = list
	}
	return object, nil
}

// formValues reads a form or a query. Unlike net/url it takes a semicolon for a character
// like any other, and a bad escape for itself, as Node.js does.
func formValues(text string) url.Values {
	all := make(url.Values)
	for pair := range strings.SplitSeq(text, "&") {
		name, value, _ := strings.Cut(pair, "=")
		if pair != "" {
			all.Add(unescape(name), unescape(value))
		}
	}
	return all
}

func unescape(text string) string {
	if plain, err := url.QueryUnescape(text); err == nil {
		return plain
	}
	return text
}

// Operations returns the operations of the document in order, as "METHOD path" with
// parameters in braces.
func (d *Document) Operations() []string {
	var all []string
	for path, item := range d.spec.Paths.Map() {
		for method := range item.Operations() {
			all = append(all, method+" "+path)
		}
	}
	slices.Sort(all)
	return all
}

// Codes returns the values that "code" may have in the answers of operations, in order.
func (d *Document) Codes(operationIDs ...string) []string {
	var all []string
	for _, item := range d.spec.Paths.Map() {
		for _, operation := range item.Operations() {
			if !slices.Contains(operationIDs, operation.OperationID) {
				continue
			}
			for _, response := range operation.Responses.Map() {
				for _, content := range response.Value.Content {
					all = append(all, codesOf(content.Schema.Value)...)
				}
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func codesOf(schema *openapi3.Schema) []string {
	var all []string
	for _, one := range slices.Concat(schema.OneOf, schema.AnyOf) {
		all = append(all, codesOf(one.Value)...)
	}
	if code := schema.Properties["code"]; code != nil {
		for _, value := range code.Value.Enum {
			all = append(all, fmt.Sprint(value))
		}
	}
	return all
}

// Exchange is a request and the answer to it.
type Exchange struct {
	Admin  bool // it was with the admin listener, whose operations have servers of their own
	Method string
	Target string // of the request line
	Header http.Header
	Body   []byte // as it was sent

	Status       int
	AnswerHeader http.Header
	Answer       []byte
}

// Check returns what is wrong with x: an answer that the document does not have, or a
// served request that it does not admit.
func (d *Document) Check(x *Exchange) error {
	path, params := d.find(x)
	if path == "" {
		return x.withoutOperation("path")
	}
	operation := d.spec.Paths.Value(path).GetOperation(strings.ToUpper(x.Method))
	if operation == nil {
		return x.withoutOperation("method")
	}
	input := d.input(x, path, params, operation)
	if x.Status < 300 {
		if err := openapi3filter.ValidateRequest(context.Background(), input); err != nil {
			return fmt.Errorf("%s %s was served, and the document does not admit the request: %w", x.Method, path, err)
		}
	}
	if err := checkAnswer(x, input); err != nil {
		return fmt.Errorf("%s %s: the document has no such answer: %d %.300s: %w", x.Method, path, x.Status, x.Answer, err)
	}
	return nil
}

// withoutOperation judges the answer to what the document says nothing of.
func (x *Exchange) withoutOperation(lacks string) error {
	allowed := []int{
		http.StatusBadRequest, http.StatusUnauthorized, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusTooManyRequests,
		http.StatusInternalServerError, http.StatusNotImplemented,
	}
	if slices.Contains(allowed, x.Status) || x.Method == http.MethodOptions && x.Status == http.StatusOK {
		return nil
	}
	return fmt.Errorf("%s %.100s: the document has no such %s, and the answer is %d", x.Method, x.Target, lacks, x.Status)
}

// find returns the path of the document that the request target means, and its
// parameters: as the service, it ignores case and one trailing slash.
func (d *Document) find(x *Exchange) (path string, params map[string]string) {
	target, _, _ := strings.Cut(x.Target, "?")
	target, _, _ = strings.Cut(target, "#")
	if _, rest, absolute := strings.Cut(target, "://"); absolute {
		target = rest[max(0, strings.Index(rest, "/")):]
	}
	want := strings.Split(strings.TrimSuffix(target, "/"), "/")
	all := d.spec.Paths.Map()
	for _, path := range slices.Sorted(maps.Keys(all)) {
		segments := strings.Split(path, "/")
		if len(segments) != len(want) || path == "/health" && target != path || x.Admin != (len(all[path].Servers) > 0) {
			continue
		}
		params := make(map[string]string)
		if matches(segments, want, params) {
			return path, params
		}
	}
	return "", nil
}

func matches(segments, want []string, params map[string]string) bool {
	for i, segment := range segments {
		name, isParam := strings.CutPrefix(segment, "{")
		switch {
		case !isParam && !strings.EqualFold(segment, want[i]), isParam && want[i] == "":
			return false
		case isParam:
			params[strings.TrimSuffix(name, "}")] = want[i]
		}
	}
	return true
}

// input is the request in the form of the library.
func (d *Document) input(x *Exchange, path string, params map[string]string, operation *openapi3.Operation) *openapi3filter.RequestValidationInput {
	_, query, _ := strings.Cut(x.Target, "?")
	r := &http.Request{
		Method: x.Method, URL: &url.URL{Path: path, RawQuery: query}, Header: x.Header.Clone(),
		Body: io.NopCloser(bytes.NewReader(plainBody(x.Body))),
	}
	return &openapi3filter.RequestValidationInput{
		Request: r, PathParams: params, QueryParams: formValues(query),
		Route: &routers.Route{Spec: d.spec, Path: path, PathItem: d.spec.Paths.Value(path), Method: x.Method, Operation: operation},
		Options: &openapi3filter.Options{
			IncludeResponseStatus: true,
			SkipSettingDefaults:   true,
			ExcludeRequestBody:    !bodyCounts(x, operation),
			AuthenticationFunc:    authenticate,
		},
	}
}

// bodyCounts reports whether the body is one that the service parses and that is to be
// read here: a compressed one is not, and one of a type that the document does not list
// counts as none.
func bodyCounts(x *Exchange, operation *openapi3.Operation) bool {
	if operation.RequestBody == nil || x.Header.Get("Content-Encoding") != "" {
		return false
	}
	body := operation.RequestBody.Value
	return body.Required || len(bytes.TrimSpace(x.Body)) > 0 && body.Content.Get(x.Header.Get("Content-Type")) != nil
}

// plainBody returns a body without a byte order mark, which the service drops.
func plainBody(body []byte) []byte { return bytes.TrimPrefix(body, []byte("\xef\xbb\xbf")) }

// authenticate admits a request that has what the scheme asks for. Whether that is
// valid the service has judged.
func authenticate(_ context.Context, input *openapi3filter.AuthenticationInput) error {
	header := input.RequestValidationInput.Request.Header
	isBearer := func(value string) bool {
		return strings.HasPrefix(strings.ToLower(strings.TrimSpace(value)), "bearer ")
	}
	switch scheme := input.SecurityScheme; {
	case scheme.Type == "http" && slices.ContainsFunc(header["Authorization"], isBearer):
		return nil
	case scheme.Type == "apiKey" && strings.Contains(strings.Join(header["Cookie"], ";"), scheme.Name+"="):
		return nil
	}
	return errors.New("the request does not authenticate by " + input.SecuritySchemeName)
}

// checkAnswer holds the answer against the operation. An answer that the document gives
// no content has no body.
func checkAnswer(x *Exchange, input *openapi3filter.RequestValidationInput) error {
	if listed := input.Route.Operation.Responses.Status(x.Status); listed != nil && len(listed.Value.Content) == 0 && len(x.Answer) > 0 {
		return errors.New("there is a body")
	}
	return openapi3filter.ValidateResponse(context.Background(), &openapi3filter.ResponseValidationInput{
		RequestValidationInput: input, Options: input.Options,
		Status: x.Status, Header: x.AnswerHeader, Body: io.NopCloser(bytes.NewReader(x.Answer)),
	})
}
