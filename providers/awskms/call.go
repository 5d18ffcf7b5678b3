package awskms

import (
	"context"
	"errors"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/smithy-go"

	"github.com/lockwood-kms/lockwood/core"
)

// call runs f, logs in again once if the credentials were refused, and explains
// the error that is left.
func (p *provider) call(ctx context.Context, operation string, f func(context.Context, *kms.Client) error) error {
	client := p.login.current()
	err := f(ctx, client)
	if err == nil {
		return nil
	}
	failed := p.explain(ctx, operation, err)
	if refused, ok := errors.AsType[*failure](failed); ok && refused.login {
		if client, err = p.login.again(ctx, client); err != nil {
			return fmt.Errorf("logging in again: %w: %w", err, core.ErrUnavailable)
		}
		if err = f(ctx, client); err == nil {
			return nil
		}
		failed = p.explain(ctx, operation, err)
	}
	if refused, ok := errors.AsType[*failure](failed); ok && refused.means == nil {
		message := ""
		if api, ok := errors.AsType[smithy.APIError](err); ok {
			message = api.ErrorMessage()
		}
		return p.byState(ctx, operation, message)
	}
	return failed
}
