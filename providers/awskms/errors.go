package awskms

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"time"

	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/credentials/processcreds"
	"github.com/aws/aws-sdk-go-v2/credentials/ssocreds"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/providers/remote"
)

// failure is an error of the service in our words. It wraps a sentinel and nothing
// of the SDK's: those errors may quote the request, the signature's text with the
// session token in it, or the output of a credential command.
type failure struct {
	answer
	service, operation, code string
	text                     string
}

// Error implements error.
func (f *failure) Error() string { return f.text }

// Unwrap returns the sentinel.
func (f *failure) Unwrap() error { return f.means }

// refusedTo reports whether err says that the identity lacks the right to an
// operation of KMS, which is another thing than lacking credentials.
func refusedTo(err error) bool {
	f, ok := errors.AsType[*failure](err)
	return ok && f.permission && f.service == serviceKMS
}

// code returns the service's code for err, or "".
func code(err error) string {
	if f, ok := errors.AsType[*failure](err); ok {
		return f.code
	}
	return ""
}

// explain turns an error of the SDK into ours; only a failure whose meaning is the
// key's state has no sentinel yet.
func (p *provider) explain(ctx context.Context, operation string, err error) error {
	if ctx.Err() != nil { // nobody answered in time, whatever the SDK made of it
		return remote.NoAnswer(ctx, serviceKMS, operation)
	}
	f := &failure{service: serviceKMS, operation: operation}
	f.locate(err)
	api, answered := errors.AsType[smithy.APIError](err)
	switch {
	case answered:
		f.code = api.ErrorCode()
		f.lookUp()
		p.describeAnswer(f, api.ErrorMessage())
	default:
		f.answer = withoutAnswer(err)
		f.text = fmt.Sprintf("%s: %s: %v", f.place(), f.remedy, f.means)
	}
	return remote.Later(f, retryAfter(err))
}

// serviceKMS is the SDK's ID of the service.
const serviceKMS = "KMS"

// locate finds which service failed: while a call to KMS fetches credentials, it
// may be STS.
func (f *failure) locate(err error) {
	for op := (*smithy.OperationError)(nil); errors.As(err, &op); err = op.Err {
		f.service, f.operation = op.ServiceID, op.OperationName
	}
}

// place names the service and the operation.
func (f *failure) place() string { return f.service + " " + f.operation }

// lookUp finds the code's meaning.
func (f *failure) lookUp() {
	if f.service != serviceKMS {
		if a, ok := loginAnswers[f.code]; ok {
			f.answer = a
			return
		}
	}
	a, ok := kmsAnswers[f.code]
	switch {
	case !ok:
		a = answer{means: core.ErrUnavailable, remedy: "the answer is none that AWS documents; look for a proxy or an endpoint that is not AWS"}
	case f.service == serviceKMS && f.operation == "Decrypt" && (f.code == "ValidationException" || f.code == "SerializationException"):
		// The rest of the request was taken before: it is the wrap that is no ciphertext.
		a = answer{means: core.ErrInvalidCiphertext}
	}
	f.answer = a
}

// filePattern finds the file that the SDK could not read, which has no error of a type.
var filePattern = regexp.MustCompile(`(?:unable to read file at|failed to read authorization token from) (/[^\n]*?): open `)

// withoutAnswer is what an error means that no service gave: the chain of
// credentials, the network, the reading of an answer. The SDK's text stands in it
// only where it can hold no secret.
func withoutAnswer(err error) answer {
	unavailable := func(remedy string) answer { return answer{means: core.ErrUnavailable, remedy: remedy} }
	if _, ok := errors.AsType[*ssocreds.InvalidTokenError](err); ok {
		return answer{means: core.ErrKeyDenied, login: true, remedy: hintSSO}
	}
	if _, ok := errors.AsType[*processcreds.ProviderError](err); ok {
		return unavailable("the credential_process of the profile failed; run it by hand")
	}
	if _, ok := errors.AsType[*credentials.StaticCredentialsEmptyError](err); ok {
		return unavailable("the access key ID or the secret access key is empty")
	}
	if _, ok := errors.AsType[*config.AssumeRoleTokenProviderNotSetError](err); ok {
		return unavailable("the profile's role wants a code of an MFA device, which a service cannot type; use another identity")
	}
	if _, ok := errors.AsType[*plainTextError](err); ok {
		return unavailable("its endpoint is http:// and not on this machine, so that credentials would cross the network in plain text: use https://, or unset the AWS_ENDPOINT_URL variable or the endpoint of the profile that names it")
	}
	if m := filePattern.FindStringSubmatch(err.Error()); m != nil {
		return unavailable("the file " + m[1] + ", which holds the token to log in with, cannot be read: look at AWS_WEB_IDENTITY_TOKEN_FILE, AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE and the profile")
	}
	if _, ok := errors.AsType[*smithy.DeserializationError](err); ok {
		return unavailable("the answer cannot be read; look for a proxy or an endpoint that is not AWS")
	}
	// AWS is sent POST, and its addresses hold no secret. Other sources of credentials
	// are asked by GET, and a container's address may.
	if e, ok := errors.AsType[*url.Error](err); ok && e.Op == "Post" {
		return unavailable("the endpoint cannot be reached: " + e.Error())
	}
	return unavailable("there are no credentials: none of the sources of the AWS SDK gave any (environment, profile, web identity, container, instance metadata); let the plugin see the variables that name yours")
}

// retryAfter returns the wait that a failed response asks for.
func retryAfter(err error) time.Duration {
	e, ok := errors.AsType[*smithyhttp.ResponseError](err)
	if !ok || e.Response == nil || e.Response.Response == nil || e.Response.StatusCode == http.StatusOK {
		return 0
	}
	return remote.RetryAfter(e.Response.Header)
}
