package awskms

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/sso"
	"github.com/aws/aws-sdk-go-v2/service/ssooidc"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go/logging"
	"github.com/aws/smithy-go/middleware"

	"github.com/lockwood-kms/lockwood/core"
)

// Options are what a test changes. Nil and the zero value mean the SDK's defaults.
type Options struct {
	// Load are further options for the SDK's configuration.
	Load []func(*config.LoadOptions) error
	// MaxBackoff bounds the SDK's wait between attempts; zero means its default.
	MaxBackoff time.Duration
}

// connector makes KMS clients. The whole configuration is read again for each, since
// credentials may come from a file or a command whose content has changed.
type connector struct {
	settings settings
	opts     Options
}

// again makes a client in the place of one whose credentials were refused.
func (l *connector) again(ctx context.Context) (*kms.Client, error) {
	client, err := l.connect(ctx)
	if err != nil {
		return nil, fmt.Errorf("logging in again: %w: %w", err, core.ErrUnavailable)
	}
	return client, nil
}

// connect reads the configuration and makes a client. It reaches for no network:
// credentials are fetched by the first call that needs them.
func (l *connector) connect(ctx context.Context) (*kms.Client, error) {
	cfg, err := config.LoadDefaultConfig(ctx, l.loadOptions()...)
	if err != nil {
		return nil, configError(err)
	}
	if cfg.Region == "" {
		return nil, errors.New("no Region is configured: add region=… to the key URI, or set AWS_REGION for the plugin")
	}
	if l.settings.roleARN != "" {
		cfg.Credentials = aws.NewCredentialsCache(stscreds.NewAssumeRoleProvider(sts.NewFromConfig(cfg), l.settings.roleARN, l.role))
	}
	client := kms.NewFromConfig(cfg, func(o *kms.Options) {
		if l.settings.endpoint != "" {
			o.BaseEndpoint = &l.settings.endpoint
		}
	})
	// The environment and a profile can name endpoints as well.
	return client, errors.Join(
		checkConfigured("KMS", client.Options().BaseEndpoint),
		checkConfigured("STS", sts.NewFromConfig(cfg).Options().BaseEndpoint),
		checkConfigured("SSO", sso.NewFromConfig(cfg).Options().BaseEndpoint),
		checkConfigured("SSO_OIDC", ssooidc.NewFromConfig(cfg).Options().BaseEndpoint),
	)
}

func (l *connector) loadOptions() []func(*config.LoadOptions) error {
	options := []func(*config.LoadOptions) error{
		config.WithAppID(Scheme + "-lockwood"),
		config.WithLogger(logging.Nop{}), // what matters is in the errors
		config.WithRetryer(l.retryer),
		config.WithAPIOptions([]func(*middleware.Stack) error{refusePlainText}),
	}
	if l.settings.region != "" {
		options = append(options, config.WithRegion(l.settings.region))
	}
	if l.settings.profile != "" {
		options = append(options, config.WithSharedConfigProfile(l.settings.profile))
	}
	return append(options, l.opts.Load...)
}

// retryer is the SDK's adaptive mode: a few attempts, and fewer calls a second once
// the service throttles. Waits end with the caller's context.
func (l *connector) retryer() aws.Retryer {
	return retry.NewAdaptiveMode(func(o *retry.AdaptiveModeOptions) {
		if l.opts.MaxBackoff == 0 {
			return
		}
		o.StandardOptions = append(o.StandardOptions, func(s *retry.StandardOptions) {
			s.MaxBackoff = l.opts.MaxBackoff
			s.Backoff = retry.NewExponentialJitterBackoff(l.opts.MaxBackoff)
		})
	})
}

func (l *connector) role(o *stscreds.AssumeRoleOptions) {
	o.RoleSessionName = l.settings.sessionName
	if o.RoleSessionName == "" {
		o.RoleSessionName = "lockwood"
	}
	if l.settings.externalID != "" {
		o.ExternalID = &l.settings.externalID
	}
}

// configError says what is wrong with the SDK's configuration without a line of
// the files, which may hold credentials.
func configError(err error) error {
	if e, ok := errors.AsType[config.SharedConfigProfileNotExistError](err); ok {
		return fmt.Errorf("there is no profile %q in the AWS configuration: correct the option profile, or let the plugin see AWS_CONFIG_FILE, AWS_SHARED_CREDENTIALS_FILE or HOME", e.Profile)
	}
	if e, ok := errors.AsType[config.SharedConfigLoadError](err); ok {
		return fmt.Errorf("the AWS configuration file %s cannot be read; check it with: aws configure list", e.Filename)
	}
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return fmt.Errorf("the file %s, which the AWS configuration or a variable such as AWS_CA_BUNDLE names, cannot be read: %w", e.Path, e.Err)
	}
	return errors.New("the AWS configuration cannot be used; check the profile, and what AWS_CA_BUNDLE and the other AWS variables name, with: aws configure list")
}
