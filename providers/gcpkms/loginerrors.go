package gcpkms

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strconv"

	"cloud.google.com/go/auth"
	"cloud.google.com/go/compute/metadata"
	"google.golang.org/grpc/codes"

	"github.com/lockwood-kms/lockwood/core"
)

// Errors of the SDK that have no type of their own.
var (
	// impersonate: status code 403: …
	impersonationPattern = regexp.MustCompile(`^(?:impersonate|credentials): status code ([0-9]{3}):`)
	// An OAuth 2.0 error code; RFC 6749, section 5.2.
	oauthCodePattern = regexp.MustCompile(`^[a-z_]{1,40}$`)
)

// explainLogin says why there is no client, or no token. The SDK's errors repeat
// the answers of token endpoints and are not.
func (p *Provider) explainLogin(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("fetching a token took too long: %w: %w", core.ErrUnavailable, ctx.Err())
	case errors.Is(err, errClosed):
		return fmt.Errorf("%w: %w", errClosed, core.ErrUnavailable)
	}
	var a answer
	if refused, ok := errors.AsType[*auth.Error](err); ok && refused.Response != nil {
		a = tokenAnswer(refused.Response.StatusCode, refused.Body)
	} else if m := impersonationPattern.FindStringSubmatch(err.Error()); m != nil {
		code, _ := strconv.Atoi(m[1]) // three digits
		a = p.impersonationAnswer(code)
	} else if _, ok := errors.AsType[metadata.NotDefinedError](err); ok {
		a = answer{means: core.ErrUnavailable, remedy: "the machine has no service account: attach one"}
	} else if local(err) {
		a = answer{means: core.ErrUnavailable, remedy: err.Error()}
	} else {
		a = answer{means: core.ErrUnavailable, remedy: "no token could be fetched; look at the network between this machine and the token endpoint or the metadata server"}
	}
	return &failure{answer: a, code: codes.Unauthenticated, text: fmt.Sprintf("logging in to Google Cloud: %s: %v", p.fill(a.remedy), a.means)}
}

// localError marks the errors of detect, which are in our words.
type localError struct{ error }

// Unwrap returns the error itself.
func (e localError) Unwrap() error { return e.error }

func local(err error) bool {
	_, ok := errors.AsType[localError](err)
	return ok
}

// tokenAnswer judges the answer of a token endpoint.
func tokenAnswer(code int, body []byte) answer {
	if code == http.StatusTooManyRequests || code == http.StatusRequestTimeout || code >= http.StatusInternalServerError {
		return answer{means: core.ErrUnavailable, remedy: "the token endpoint has a failure of its own; it is asked again"}
	}
	var said struct {
		Error string `json:"error"`
	}
	_ = json.Unmarshal(body, &said) // it may be anything
	reason := ""
	if oauthCodePattern.MatchString(said.Error) {
		reason = " (" + said.Error + ")"
	}
	return answer{means: core.ErrKeyDenied, login: true, remedy: "the token endpoint refuses the credentials" + reason + ": look whether the service account or its key was disabled or deleted, whether the login has ended, and whether the clock of this machine is right"}
}

// impersonationAnswer judges the answer of the IAM Service Account Credentials API.
func (p *Provider) impersonationAnswer(code int) answer {
	account := p.settings.impersonate
	if account == "" {
		account = "ACCOUNT"
	}
	switch code {
	case http.StatusForbidden:
		return answer{means: core.ErrKeyDenied, login: true, remedy: "the identity lacks iam.serviceAccounts.getAccessToken on " + account + ": grant it with gcloud iam service-accounts add-iam-policy-binding " + account + " --member=IDENTITY --role=roles/iam.serviceAccountTokenCreator, and enable iamcredentials.googleapis.com"}
	case http.StatusNotFound, http.StatusBadRequest:
		return answer{means: core.ErrKeyDenied, login: true, remedy: "there is no service account " + account + ": correct the option impersonate_service_account"}
	default:
		return tokenAnswer(code, nil)
	}
}
