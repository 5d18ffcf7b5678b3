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

// refusedTo reports whether err says that the identity lacks the right to an
// operation of KMS, which is another thing than lacking credentials.
func refusedTo(err error) bool {
	f, _ := remote.ServiceErrorOf(err)
	return f.Permission && f.Service == serviceKMS
}

// code returns the service's code for err, or "".
func code(err error) string {
	f, _ := remote.ServiceErrorOf(err)
	return f.Code
}

// explain turns an error of the SDK into ours; only a failure whose meaning is the
// key's state has no sentinel yet.
func (p *provider) explain(ctx context.Context, operation string, err error) error {
	if ctx.Err() != nil { // nobody answered in time, whatever the SDK made of it
		return remote.NoAnswer(ctx, serviceKMS, operation)
	}
	f := locate(err, operation)
	if api, answered := errors.AsType[smithy.APIError](err); answered {
		f.Code = api.ErrorCode()
		f.Answer = lookUp(f)
		p.describeAnswer(f, api.ErrorMessage())
	} else {
		f.Answer = withoutAnswer(err)
		f.Text = fmt.Sprintf("%s: %s: %v", place(f), f.Remedy, f.Means)
	}
	return remote.Later(f, retryAfter(err))
}

// serviceKMS is the SDK's ID of the service.
const serviceKMS = "KMS"

// locate finds which service failed: while a call to KMS fetches credentials, it
// may be STS.
func locate(err error, operation string) *remote.ServiceError {
	f := &remote.ServiceError{Service: serviceKMS, Operation: operation}
	for op := (*smithy.OperationError)(nil); errors.As(err, &op); err = op.Err {
		f.Service, f.Operation = op.ServiceID, op.OperationName
	}
	return f
}

// place names the service and the operation.
func place(f *remote.ServiceError) string { return f.Service + " " + f.Operation }

// lookUp finds the meaning of a code.
func lookUp(f *remote.ServiceError) remote.Answer {
	if f.Service != serviceKMS {
		if a, ok := loginAnswers[f.Code]; ok {
			return a
		}
	}
	a, ok := kmsAnswers[f.Code]
	switch {
	case !ok:
		return remote.Unavailable("the answer is none that AWS documents; look for a proxy or an endpoint that is not AWS")
	case f.Service == serviceKMS && f.Operation == "Decrypt" && (f.Code == "ValidationException" || f.Code == "SerializationException"):
		// The rest of the request was taken before: it is the wrap that is no ciphertext.
		return remote.Answer{Means: core.ErrInvalidCiphertext}
	}
	return a
}

// filePattern finds the file that the SDK could not read, which has no error of a type.
var filePattern = regexp.MustCompile(`(?:unable to read file at|failed to read authorization token from) (/[^\n]*?): open `)

// withoutAnswer is what an error means that no service gave: the chain of
// credentials, the network, the reading of an answer. The SDK's text stands in it
// only where it can hold no secret.
func withoutAnswer(err error) remote.Answer {
	if _, ok := errors.AsType[*ssocreds.InvalidTokenError](err); ok {
		return remote.Refused(hintSSO)
	}
	if _, ok := errors.AsType[*processcreds.ProviderError](err); ok {
		return remote.Unavailable("the credential_process of the profile failed; run it by hand")
	}
	if _, ok := errors.AsType[*credentials.StaticCredentialsEmptyError](err); ok {
		return remote.Unavailable("the access key ID or the secret access key is empty")
	}
	if _, ok := errors.AsType[*config.AssumeRoleTokenProviderNotSetError](err); ok {
		return remote.Unavailable("the profile's role wants a code of an MFA device, which a service cannot type; use another identity")
	}
	if _, ok := errors.AsType[*plainTextError](err); ok {
		return remote.Unavailable("its endpoint is http:// and not on this machine, so that credentials would cross the network in plain text: use https://, or unset the AWS_ENDPOINT_URL variable or the endpoint of the profile that names it")
	}
	if m := filePattern.FindStringSubmatch(err.Error()); m != nil {
		return remote.Unavailable("the file " + m[1] + ", which holds the token to log in with, cannot be read: look at AWS_WEB_IDENTITY_TOKEN_FILE, AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE and the profile")
	}
	if _, ok := errors.AsType[*smithy.DeserializationError](err); ok {
		return remote.Unavailable("the answer cannot be read; look for a proxy or an endpoint that is not AWS")
	}
	// AWS is sent POST, and its addresses hold no secret. Other sources of credentials
	// are asked by GET, and a container's address may.
	if e, ok := errors.AsType[*url.Error](err); ok && e.Op == "Post" {
		return remote.Unavailable("the endpoint cannot be reached: " + e.Error())
	}
	return remote.Unavailable("there are no credentials: none of the sources of the AWS SDK gave any (environment, profile, web identity, container, instance metadata); let the plugin see the variables that name yours")
}

// retryAfter returns the wait that a failed response asks for.
func retryAfter(err error) time.Duration {
	e, ok := errors.AsType[*smithyhttp.ResponseError](err)
	if !ok || e.Response == nil || e.Response.Response == nil || e.Response.StatusCode == http.StatusOK {
		return 0
	}
	return remote.RetryAfter(e.Response.Header)
}
