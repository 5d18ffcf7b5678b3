package awskms

import (
	"context"
	"errors"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/smithy-go"

	"github.com/lockwood-kms/lockwood/providers/remote"
)

// call runs f, logs in again once if the credentials were refused, and explains
// the error that is left.
func (p *provider) call(ctx context.Context, operation string, f func(context.Context, *kms.Client) error) error {
	message := "" // the service's, of the last attempt
	err := p.login.Call(ctx, func(ctx context.Context, client *kms.Client) error {
		err := f(ctx, client)
		if err == nil {
			return nil
		}
		if api, ok := errors.AsType[smithy.APIError](err); ok {
			message = api.ErrorMessage()
		}
		return p.explain(ctx, operation, err)
	})
	if failed, ok := remote.ServiceErrorOf(err); ok && failed.Answer == stateDecides {
		return p.byState(ctx, operation, message)
	}
	return err
}
