package gcpkms

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"regexp"
	"strconv"
	"strings"

	"cloud.google.com/go/auth"
	"cloud.google.com/go/compute/metadata"
	"google.golang.org/grpc/codes"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/providers/remote"
)

// Errors of the SDK that have no type of their own.
var (
	// impersonate: status code 403: BODY, or credentials: status code 403: BODY
	refusalPattern = regexp.MustCompile(`(?s)^(impersonate|credentials): status code ([0-9]{3}): ?(.*)`)
	// An OAuth 2.0 error code; RFC 6749, section 5.2.
	oauthCodePattern = regexp.MustCompile(`^[a-z_]{1,40}$`)
)

// explainLogin says why there is no client, or no token. The SDK's errors repeat
// the answers of token endpoints and are not.
func (p *provider) explainLogin(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("fetching a token took too long: %w: %w", core.ErrUnavailable, ctx.Err())
	case errors.Is(err, errClosed):
		return fmt.Errorf("%w: %w", errClosed, core.ErrUnavailable)
	}
	var a remote.Answer
	if refused, ok := errors.AsType[*auth.Error](err); ok && refused.Response != nil {
		a = tokenAnswer(refused.Response.StatusCode, refused.Body)
	} else if m := refusalPattern.FindStringSubmatch(err.Error()); m != nil {
		code, _ := strconv.Atoi(m[2]) // three digits
		a = p.exchangeAnswer(m[1] == "impersonate", code, []byte(m[3]))
	} else if _, ok := errors.AsType[metadata.NotDefinedError](err); ok {
		a = remote.Unavailable("the machine has no service account: attach one")
	} else if local(err) {
		a = remote.Unavailable(err.Error())
	} else {
		a = p.withoutToken(err)
	}
	return &remote.ServiceError{Answer: a, Code: codes.Unauthenticated.String(), Text: fmt.Sprintf("logging in to Google Cloud: %s: %v", p.fill(a.Remedy), a.Means)}
}

// localError marks the errors of detect, which are in our words.
type localError struct{ error }

// Unwrap returns the error itself.
func (e localError) Unwrap() error { return e.error }

func local(err error) bool {
	_, ok := errors.AsType[localError](err)
	return ok
}

// withoutToken says why no service gave a token, or refused one.
func (p *provider) withoutToken(err error) remote.Answer {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return remote.Unavailable(fmt.Sprintf("the file %s, which the credential_source of the credentials file names, cannot be read: %v", e.Path, e.Err))
	}
	network := networkHint(err.Error())
	if s := p.login.source.Load(); s != nil && s.federated {
		if strings.Contains(err.Error(), "GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES") {
			return remote.Unavailable("workload identity federation: the credential_source is a program, which runs only if GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES=1 is set for the plugin")
		}
		return remote.Unavailable("workload identity federation: no token could be had or exchanged" + network + "; look at the credential_source of the credentials file, and at the network between this machine and its token_url")
	}
	return remote.Unavailable("no token could be fetched" + network + "; look at the network between this machine and the token endpoint or the metadata server")
}

// exchangeAnswer judges a refusal of which the SDK tells the status and the body. Under
// one name it returns those of two services: of the exchange of federation, whose errors
// are OAuth's, and of impersonation by a credentials file, whose errors are those of
// Google's APIs.
func (p *provider) exchangeAnswer(impersonation bool, code int, body []byte) remote.Answer {
	var said struct {
		Error json.RawMessage `json:"error"`
	}
	isJSON := json.Unmarshal(body, &said) == nil && len(said.Error) > 0
	switch {
	case passing(code):
	case !isJSON:
		return remote.Unavailable("what answered with " + strconv.Itoa(code) + " was no service of Google: look for a proxy, and at the token_url and the URLs of the credentials file")
	case impersonation || said.Error[0] == '{':
		return p.impersonationAnswer(code)
	}
	if s := p.login.source.Load(); s == nil || !s.federated {
		return tokenAnswer(code, body)
	}
	a := tokenAnswer(code, body)
	if a.Login {
		a.Remedy = "workload identity federation: the Security Token Service refuses the token of the identity provider" + oauthReason(body) + ": look whether the pool and the provider of the credentials file's audience exist and are enabled, whether the issuer, the audience and the attribute condition of the provider fit the token, and whether it has expired"
	}
	return a
}

// passing reports whether a status says that a service fails by itself.
func passing(code int) bool {
	return code == http.StatusTooManyRequests || code == http.StatusRequestTimeout || code >= http.StatusInternalServerError
}

// tokenAnswer judges the answer of a token endpoint.
func tokenAnswer(code int, body []byte) remote.Answer {
	if passing(code) {
		return remote.Unavailable("the token endpoint has a failure of its own; it is asked again")
	}
	if !json.Valid(body) {
		return remote.Unavailable("what answered with " + strconv.Itoa(code) + " was no token endpoint: look for a proxy")
	}
	return remote.Refused("the token endpoint refuses the credentials" + oauthReason(body) + ": look whether the service account or its key was disabled or deleted, whether the login has ended, and whether the clock of this machine is right")
}

// oauthReason is the error code of a body, in parentheses, or "".
func oauthReason(body []byte) string {
	var said struct {
		Error string `json:"error"`
	}
	_ = json.Unmarshal(body, &said) // it may be anything
	if !oauthCodePattern.MatchString(said.Error) {
		return ""
	}
	return " (" + said.Error + ")"
}

// impersonationAnswer judges the answer of the IAM Service Account Credentials API.
func (p *provider) impersonationAnswer(code int) remote.Answer {
	account := p.settings.impersonate
	if s := p.login.source.Load(); account == "" && s != nil {
		account = s.account
	}
	if account == "" {
		account = "ACCOUNT"
	}
	switch code {
	case http.StatusForbidden:
		return remote.Refused("the identity lacks iam.serviceAccounts.getAccessToken on " + account + ": grant it with gcloud iam service-accounts add-iam-policy-binding " + account + " --member=IDENTITY --role=roles/iam.serviceAccountTokenCreator, and enable iamcredentials.googleapis.com")
	case http.StatusNotFound, http.StatusBadRequest:
		return remote.Refused("there is no service account " + account + ": correct the option impersonate_service_account, or service_account_impersonation_url in the credentials file")
	default:
		return tokenAnswer(code, []byte("{}"))
	}
}
