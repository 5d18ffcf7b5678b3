// Command localkms is an AWS KMS for tests: github.com/nsmithuk/local-kms, with
// its real AES-256-GCM and its real protocol, behind a listener of our own. It
// exists because that project's own program listens on every interface and
// outlives whoever started it; this one listens on a free port of the loopback
// interface, prints its address as one line, and ends when its standard input
// does, so that no test leaves one behind.
//
// One thing is added. With a KeyId, local-kms takes no notice of the key that the
// ciphertext names in its head, so that altering the head goes unnoticed; AWS
// authenticates the whole of a ciphertext and answers IncorrectKeyException for
// that of another key. So does this.
//
// It is a module of its own, so that what it drags in is no dependency of the
// product. Where it differs from AWS is told in internal/awstest.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"reflect"
	"strings"
	"time"

	"github.com/nsmithuk/local-kms/src/config"
	"github.com/nsmithuk/local-kms/src/data"
	"github.com/nsmithuk/local-kms/src/handler"
	"github.com/nsmithuk/local-kms/src/service"
	"github.com/sirupsen/logrus"
)

func main() {
	if err := run(os.Stdin, os.Stdout); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "localkms:", err)
		os.Exit(1)
	}
}

// run serves until the end of in.
func run(in io.Reader, out io.Writer) error {
	dir, err := os.MkdirTemp("", "localkms")
	if err != nil {
		return fmt.Errorf("making the data directory: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	config.AWSAccountId, config.AWSRegion = "111122223333", "eu-west-3"
	database := data.NewDatabase(dir)
	defer database.Close()

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listening: %w", err)
	}
	server := &http.Server{Handler: kms{database: database, log: silent()}, ReadHeaderTimeout: 10 * time.Second}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	if _, err := fmt.Fprintf(out, "http://%s\n", listener.Addr()); err != nil {
		return fmt.Errorf("telling the address: %w", err)
	}
	_, _ = io.Copy(io.Discard, in) // whatever ends the input ends the server
	_ = server.Close()
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving: %w", err)
	}
	return nil
}

func silent() *logrus.Logger {
	log := logrus.New()
	log.SetOutput(io.Discard)
	return log
}

// kms hands a request to the method of local-kms that X-Amz-Target names.
type kms struct {
	database *data.Database
	log      *logrus.Logger
}

// ServeHTTP implements http.Handler.
func (k kms) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_, operation, _ := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
	if err != nil {
		return // the client has gone
	}
	if operation == "Decrypt" && namesOtherKey(body) {
		respond(w, http.StatusBadRequest, `{"__type":"IncorrectKeyException"}`)
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	method := reflect.ValueOf(handler.NewRequestHandler(r, k.log, k.database)).MethodByName(operation)
	if !method.IsValid() || method.Type().NumIn() != 0 || method.Type().NumOut() != 1 {
		http.Error(w, "not implemented", http.StatusNotImplemented)
		return
	}
	answer, ok := reflect.TypeAssert[handler.Response](method.Call(nil)[0])
	if !ok {
		http.Error(w, "not implemented", http.StatusNotImplemented)
		return
	}
	respond(w, answer.Code, answer.Body)
}

func respond(w http.ResponseWriter, status int, body string) {
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, body)
}

// namesOtherKey says whether a request to Decrypt names a key by its ARN, and the
// ciphertext in it another one.
func namesOtherKey(body []byte) bool {
	var in struct {
		KeyID          string `json:"KeyId"`
		CiphertextBlob []byte
	}
	if err := json.Unmarshal(body, &in); err != nil || !strings.HasPrefix(in.KeyID, "arn:") {
		return false
	}
	key, _, _, ok := service.UnpackCiphertextBlob(in.CiphertextBlob)
	return ok && key != in.KeyID
}
