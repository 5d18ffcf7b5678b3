package awskms

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/smithy-go"

	"github.com/lockwood-kms/lockwood/core"
)

// callTimeout bounds a call whose context has no deadline.
const callTimeout = 30 * time.Second

// ready returns why nothing is asked of the service: the provider is closed, or the
// caller has gone.
func (p *Provider) ready(ctx context.Context) error {
	if p.closed.Load() {
		return fmt.Errorf("the provider is closed: %w", core.ErrUnavailable)
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: %w", core.ErrUnavailable, err)
	}
	return nil
}

// call runs f, logs in again once if the credentials were refused, and explains
// the error that is left.
func (p *Provider) call(ctx context.Context, operation string, f func(context.Context, *kms.Client) error) error {
	if err := p.ready(ctx); err != nil {
		return err
	}
	if _, bounded := ctx.Deadline(); !bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, callTimeout)
		defer cancel()
	}
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
