package awskms_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/kms"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/providertest"
	"github.com/lockwood-kms/lockwood/internal/awstest"
	"github.com/lockwood-kms/lockwood/providers/awskms"
)

// isolate keeps the credentials and settings of whoever runs the test out of it.
func isolate(t *testing.T) {
	t.Helper()
	for _, name := range []string{"AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY",
		"AWS_SESSION_TOKEN", "AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
		"AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_KMS", "AWS_ENDPOINT_URL_STS", "AWS_CA_BUNDLE", "HTTP_PROXY", "HTTPS_PROXY"} {
		t.Setenv(name, "")
	}
	dir := t.TempDir()
	t.Setenv("AWS_CONFIG_FILE", dir+"/config")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", dir+"/credentials")
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
}

// secret is a secret access key, made up, and long enough for an HMAC key under
// GODEBUG=fips140=only.
const secret = "made-up-secret-of-40-characters-000000000"

// static are options with credentials, and without the SDK's waits.
func static() *awskms.Options {
	return &awskms.Options{
		Load: []func(*config.LoadOptions) error{
			config.WithCredentialsProvider(credentials.NewStaticCredentialsProvider("AKIDTEST", secret, "")),
		},
		MaxBackoff: time.Millisecond,
	}
}

func newServer(t *testing.T) *awstest.Server {
	t.Helper()
	isolate(t)
	s := awstest.NewServer()
	t.Cleanup(s.Close)
	return s
}

// open makes a provider of awskms:///KEY at an endpoint.
func open(t *testing.T, endpoint, key string, opts *awskms.Options) *awskms.Provider {
	t.Helper()
	p, err := newProvider(t.Context(), endpoint, key, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

func newProvider(ctx context.Context, endpoint, key string, opts *awskms.Options) (*awskms.Provider, error) {
	query := "region=" + awstest.Region + "&"
	if u, err := url.Parse(key); err == nil && u.Query().Has("region") {
		query = ""
	}
	separator := "?"
	if u, err := url.Parse(key); err == nil && u.RawQuery != "" {
		separator = "&"
	}
	uri, err := core.ParseKeyURI("awskms:///" + key + separator + query + "endpoint=" + url.QueryEscape(endpoint))
	if err != nil {
		return nil, err
	}
	if opts == nil {
		opts = static()
	}
	return awskms.New(ctx, uri, opts)
}

// lenient is the hook that makes a server lenient.
func lenient(s *awstest.Server) func(context.Context, providertest.Leniency) (func(), error) {
	return func(_ context.Context, l providertest.Leniency) (func(), error) { return s.Become(l), nil }
}

var lacksMissing = "a key URI always names a key; one that does not exist is an answer of the service"

// The server of AWS's exact behaviour, by each way of naming the key, and as a
// service with less than AWS has.
func TestConformance(t *testing.T) {
	for name, c := range map[string]struct {
		key        func(k *awstest.Key) string
		multi      bool
		reduced    bool // no DryRun, no key materials
		noDescribe bool
	}{
		"key ID":               {key: (*awstest.Key).ID},
		"key ARN":              {key: (*awstest.Key).ARN},
		"alias":                {key: func(k *awstest.Key) string { k.Alias("forest"); return "alias/forest" }},
		"multi-Region key":     {key: (*awstest.Key).ARN, multi: true},
		"multi-Region replica": {key: func(k *awstest.Key) string { return k.Replicate("us-east-1").ARN() + "?region=us-east-1" }, multi: true},
		"reduced service":      {key: func(k *awstest.Key) string { k.Alias("forest"); return "alias/forest" }, reduced: true},
		"without DescribeKey":  {key: (*awstest.Key).ARN, noDescribe: true},
	} {
		t.Run(name, func(t *testing.T) {
			providertest.Run(t, func(t *testing.T) *providertest.Subject {
				s := newServer(t)
				s.NoDryRun, s.NoMaterials = c.reduced, c.reduced
				if c.noDescribe {
					s.Revoke("DescribeKey")
				}
				k := s.CreateKey("one")
				if c.multi {
					k = s.CreateMultiRegionKey("one")
				}
				uri := c.key(k)
				subject := &providertest.Subject{
					Provider: open(t, s.URL, uri, nil),
					Foreign:  open(t, s.URL, s.CreateKey("two").ARN(), nil),
					Deny: func(context.Context) (func(), error) {
						return s.Revoke("*"), nil
					},
					Unavailable: func(context.Context) (func(), error) {
						return s.Fail("*", awstest.Fault{Code: "KMSInternalException", Status: http.StatusInternalServerError}), nil
					},
					Rotate: func(context.Context) error {
						k.Rotate()
						return nil
					},
					Restart: func(ctx context.Context) (core.KeyProvider, error) { return newProvider(ctx, s.URL, uri, nil) },
					Lenient: lenient(s),
					Lacks:   map[providertest.Hook]string{providertest.HookMissing: lacksMissing},
				}
				if c.reduced || c.noDescribe {
					subject.Rotate, subject.Lacks[providertest.HookRotate] = nil, "a rotation cannot be seen where the key material is not reported"
				}
				if c.noDescribe {
					// Everything refused includes the naming of the key, which "*" would do again.
					subject.Deny = func(context.Context) (func(), error) {
						var restore []func()
						for _, operation := range []string{"Decrypt", "Encrypt", "GenerateDataKey"} {
							restore = append(restore, s.Revoke(operation))
						}
						return func() {
							for _, f := range restore {
								f()
							}
						}, nil
					}
				}
				return subject
			})
		})
	}
}

// A disabled key is as good as a refused right.
func TestConformanceOfADisabledKey(t *testing.T) {
	providertest.Run(t, func(t *testing.T) *providertest.Subject {
		s := newServer(t)
		k := s.CreateKey("one")
		return &providertest.Subject{
			Provider: open(t, s.URL, k.ID(), nil),
			Deny:     func(context.Context) (func(), error) { return k.SetState(awstest.Disabled), nil },
			Unavailable: func(context.Context) (func(), error) {
				return s.Fail("*", awstest.Fault{Drop: true}), nil
			},
			Lacks: map[providertest.Hook]string{
				providertest.HookMissing: lacksMissing, providertest.HookForeign: "in the test above",
				providertest.HookRotate: "in the test above", providertest.HookRestart: "in the test above",
				providertest.HookLenient: "in the test above",
			},
		}
	})
}

// localKMS starts local-kms behind a switch that makes it answer nothing.
func localKMS(t *testing.T) (endpoint string, down *atomic.Bool) {
	t.Helper()
	required := os.Getenv(awstest.RequireEnv) == "1"
	target, stop, err := awstest.StartLocalKMS(t.Context(), "../..", required)
	switch {
	case errors.Is(err, awstest.ErrNotBuilt):
		t.Skip(err)
	case err != nil:
		t.Fatal(err)
	}
	t.Cleanup(stop)
	u, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	down = new(atomic.Bool)
	proxy := httputil.NewSingleHostReverseProxy(u)
	proxy.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) }
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if down.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(front.Close)
	return front.URL, down
}

// local-kms, which others wrote.
func TestConformanceOnLocalKMS(t *testing.T) {
	isolate(t)
	endpoint, down := localKMS(t)
	admin := kms.New(kms.Options{
		BaseEndpoint: &endpoint, Region: awstest.Region,
		Credentials: credentials.NewStaticCredentialsProvider("AKIDTEST", secret, ""),
	})
	create := func(t *testing.T) string {
		t.Helper()
		out, err := admin.CreateKey(t.Context(), &kms.CreateKeyInput{})
		if err != nil {
			t.Fatal(err)
		}
		return aws.ToString(out.KeyMetadata.Arn)
	}
	providertest.Run(t, func(t *testing.T) *providertest.Subject {
		key := create(t)
		return &providertest.Subject{
			Provider: open(t, endpoint, key, nil),
			Foreign:  open(t, endpoint, create(t), nil),
			Deny: func(ctx context.Context) (func(), error) {
				_, err := admin.DisableKey(ctx, &kms.DisableKeyInput{KeyId: &key})
				return func() {
					if _, err := admin.EnableKey(context.WithoutCancel(ctx), &kms.EnableKeyInput{KeyId: &key}); err != nil {
						t.Error(err)
					}
				}, err
			},
			Unavailable: func(context.Context) (func(), error) {
				down.Store(true)
				return func() { down.Store(false) }, nil
			},
			Restart: func(ctx context.Context) (core.KeyProvider, error) { return newProvider(ctx, endpoint, key, nil) },
			Lacks: map[providertest.Hook]string{
				providertest.HookMissing: lacksMissing,
				providertest.HookRotate:  "local-kms rotates on a schedule of years only, and reports no key material",
				providertest.HookLenient: "local-kms is not lenient in these ways",
			},
		}
	})
}
