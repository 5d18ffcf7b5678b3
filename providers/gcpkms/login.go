package gcpkms

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"regexp"
	"sync"
	"sync/atomic"
	"time"

	"cloud.google.com/go/auth"
	"cloud.google.com/go/auth/credentials"
	"cloud.google.com/go/auth/credentials/impersonate"
	kms "cloud.google.com/go/kms/apiv1"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	"github.com/lockwood-kms/lockwood/providers/remote"
)

// Options are what a test changes. Nil and the zero value mean the defaults.
type Options struct {
	// Client are further options for the client of the service.
	Client []option.ClientOption
	// HTTP fetches tokens.
	HTTP *http.Client
	// MaxBackoff bounds the wait between attempts; zero means 2 s.
	MaxBackoff time.Duration
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// silent takes what the SDK would log. Its debug log, which the variable
// GOOGLE_SDK_GO_LOGGING_LEVEL turns on, holds whole messages, and with them data
// keys and tokens.
var silent = slog.New(slog.DiscardHandler)

// login holds the client of the service and its credentials. Both are made when
// they are first needed, since looking for credentials may ask the metadata server.
// The client stays; the credentials are exchanged when they are refused.
type login struct {
	settings settings
	opts     Options

	mu     sync.Mutex
	making *making // nil until the first call, and after a failure
	closed bool

	creds  remote.Login[*auth.Credentials] // nil until there are any, and if insecure
	source atomic.Pointer[source]          // where they come from; nil until there are any
}

// making is one making of a client, for which callers wait. The result is written
// under the login's lock, and read under it or when done is closed.
type making struct {
	done   chan struct{}
	client *kms.KeyManagementClient
	err    error
}

var errClosed = errors.New("the provider is closed")

// client returns the client, and makes it if there is none. Making it goes on when
// its caller gives up, for the next one.
func (l *login) client(ctx context.Context) (*kms.KeyManagementClient, error) {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil, errClosed
	}
	if l.making == nil {
		l.making = &making{done: make(chan struct{})}
		go l.make(context.WithoutCancel(ctx), l.making)
	}
	m := l.making
	l.mu.Unlock()
	select {
	case <-m.done:
		return m.client, m.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// make makes the client. It opens no connection.
func (l *login) make(ctx context.Context, m *making) {
	defer close(m.done)
	client, err := l.connect(ctx)
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case err != nil:
		m.err, l.making = err, nil
	case l.closed:
		_ = client.Close() // nobody used it
		m.err = errClosed
	default:
		m.client = client
	}
}

func (l *login) connect(ctx context.Context) (*kms.KeyManagementClient, error) {
	opts := []option.ClientOption{
		option.WithLogger(silent),
		option.WithTelemetryDisabled(),
		// A connection that died silently is noticed by the call that waits on it.
		option.WithGRPCDialOption(grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 5 * time.Second})),
	}
	if l.settings.endpoint != "" {
		opts = append(opts, option.WithEndpoint(l.settings.endpoint))
	}
	if l.settings.insecure {
		opts = append(opts, option.WithoutAuthentication(), option.WithGRPCDialOption(grpc.WithTransportCredentials(insecure.NewCredentials())))
	} else {
		creds, err := l.detect()
		if err != nil {
			return nil, err
		}
		l.creds.Set(creds)
		opts = append(opts, option.WithAuthCredentials(l.credentials()))
	}
	if l.settings.quotaProject != "" {
		opts = append(opts, option.WithQuotaProject(l.settings.quotaProject))
	}
	client, err := kms.NewKeyManagementClient(ctx, append(opts, l.opts.Client...)...)
	if err != nil {
		return nil, fmt.Errorf("making client: %w", err)
	}
	return client, nil
}

// credentials are the credentials in use, whichever these are by then.
func (l *login) credentials() *auth.Credentials {
	return auth.NewCredentials(&auth.CredentialsOptions{
		TokenProvider:          l,
		UniverseDomainProvider: auth.CredentialsPropertyFunc(func(ctx context.Context) (string, error) { return l.creds.Current().UniverseDomain(ctx) }),
		QuotaProjectIDProvider: auth.CredentialsPropertyFunc(func(ctx context.Context) (string, error) { return l.creds.Current().QuotaProjectID(ctx) }),
	})
}

// Token implements auth.TokenProvider. Tokens are cached below it.
func (l *login) Token(ctx context.Context) (*auth.Token, error) { return l.creds.Current().Token(ctx) }

// again reads the credentials anew: a file may have been exchanged.
func (p *provider) again(ctx context.Context) (*auth.Credentials, error) {
	if p.settings.insecure {
		return nil, nil //nolint:nilnil // no credentials are sent
	}
	creds, err := p.login.detect()
	if err != nil {
		return nil, p.explainLogin(ctx, err)
	}
	return creds, nil
}

// detect reads the credentials that are configured, or looks for the default ones.
// Its errors are localErrors.
func (l *login) detect() (*auth.Credentials, error) {
	opts := &credentials.DetectOptions{Scopes: kms.DefaultAuthScopes(), UseSelfSignedJWT: true, Client: l.opts.HTTP, Logger: silent}
	var creds *auth.Credentials
	var err error
	if l.settings.file != "" {
		creds, err = fromFile(l.settings.file, opts)
	} else if creds, err = credentials.DetectDefault(opts); err != nil {
		err = noDefault(err)
	}
	if err != nil {
		return nil, localError{err}
	}
	l.source.Store(sourceOf(creds.JSON()))
	if l.settings.impersonate == "" {
		return creds, nil
	}
	creds, err = impersonate.NewCredentials(&impersonate.CredentialsOptions{
		TargetPrincipal: l.settings.impersonate, Scopes: kms.DefaultAuthScopes(), Credentials: creds, Client: l.opts.HTTP, Logger: silent,
	})
	if err != nil {
		return nil, localError{errors.New("the credentials cannot be used to impersonate a service account")}
	}
	return creds, nil
}

var errNoCredentials = errors.New("there are no credentials that can be used: give the plugin those of the machine's service account or of workload identity, let it see GOOGLE_APPLICATION_CREDENTIALS, name a file by the option credentials_file, or run gcloud auth application-default login (CLOUDSDK_AUTH_ACCESS_TOKEN is not read, nor is KMS_EMULATOR_HOST: name an emulator by the options endpoint and insecure)")

// noDefault says why there are no default credentials. Only the file that the variable
// names is an error by itself; the others are looked for.
func noDefault(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return fmt.Errorf("the file %s, which GOOGLE_APPLICATION_CREDENTIALS names, cannot be read: %w", e.Path, e.Err)
	}
	return errNoCredentials
}

// source is what a credentials file says of how its tokens are got.
type source struct {
	// federated says that a token of another identity provider is exchanged.
	federated bool
	// account is the service account that is acted as, or "".
	account string
}

// impersonationURL ends with the service account.
var impersonationURL = regexp.MustCompile(`/serviceAccounts/([^/:]+):generateAccessToken$`)

// sourceOf reads a credentials file, which may be nil.
func sourceOf(content []byte) *source {
	var file struct {
		Type credentials.CredType `json:"type"`
		URL  string               `json:"service_account_impersonation_url"`
	}
	_ = json.Unmarshal(content, &file) // what is no such file says nothing
	s := &source{federated: file.Type == credentials.ExternalAccount || file.Type == credentials.ExternalAccountAuthorizedUser}
	if m := impersonationURL.FindStringSubmatch(file.URL); m != nil && accountPattern.MatchString(m[1]) {
		s.account = m[1]
	}
	return s
}

// fileTypes are the types of credentials that a file may hold.
var fileTypes = map[credentials.CredType]bool{
	credentials.ServiceAccount: true, credentials.AuthorizedUser: true, credentials.ExternalAccount: true,
	credentials.ExternalAccountAuthorizedUser: true, credentials.ImpersonatedServiceAccount: true,
}

// fromFile reads a credentials file. Its errors hold no part of it.
func fromFile(name string, opts *credentials.DetectOptions) (*auth.Credentials, error) {
	content, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("the credentials file cannot be read: correct the option credentials_file: %w", err)
	}
	var kind struct {
		Type credentials.CredType `json:"type"`
	}
	if json.Unmarshal(content, &kind) != nil || !fileTypes[kind.Type] {
		return nil, fmt.Errorf("%s is no credentials file of Google Cloud: want the JSON key of a service account, the configuration of workload identity federation, or what gcloud auth application-default login writes", name)
	}
	creds, err := credentials.NewCredentialsFromJSON(kind.Type, content, opts)
	if err != nil {
		return nil, fmt.Errorf("%s has the type %s, and the rest of it cannot be used: download or make it again", name, kind.Type)
	}
	return creds, nil
}

// close closes the client. It may be called more than once.
func (l *login) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	l.closed = true
	if l.making != nil && l.making.client != nil { // else make closes it
		_ = l.making.client.Close() // calls under way fail, which is meant
	}
}
