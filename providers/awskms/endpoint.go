package awskms

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"

	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/lockwood-kms/lockwood/providers/remote"
)

// checkEndpoint refuses a URL that could hold a secret, and one by which data keys
// would travel in plain text: KMS answers with them, protected by TLS alone.
func checkEndpoint(endpoint string) error {
	u, err := url.Parse(endpoint)
	if err != nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http") || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return errors.New("the endpoint is not of the form https://HOST or https://HOST:PORT, without user, query or fragment")
	}
	if u.Scheme == "http" && !remote.Loopback(u.Host) {
		return errors.New("the endpoint is http:// and not on this machine: data keys would cross the network in plain text; use https://")
	}
	return nil
}

// checkConfigured is checkEndpoint for the endpoint of a service that the environment or
// a profile names. Those that give out credentials are sent some, and answer with others.
func checkConfigured(service string, endpoint *string) error {
	if endpoint == nil {
		return nil
	}
	if err := checkEndpoint(*endpoint); err != nil {
		return fmt.Errorf("AWS_ENDPOINT_URL_%s, AWS_ENDPOINT_URL, or endpoint_url in the profile: %w", service, err)
	}
	return nil
}

// plainTextError is a request that was not sent, since TLS would not protect it.
type plainTextError struct{}

// Error implements error.
func (*plainTextError) Error() string { return "a request in plain text was not sent" }

// refusePlainText keeps every client of the SDK from sending credentials over a network
// in plain text, whatever named the endpoint.
func refusePlainText(stack *middleware.Stack) error {
	return stack.Finalize.Add(middleware.FinalizeMiddlewareFunc("RefusePlainText", func(ctx context.Context, in middleware.FinalizeInput, next middleware.FinalizeHandler) (middleware.FinalizeOutput, middleware.Metadata, error) {
		if r, ok := in.Request.(*smithyhttp.Request); ok && r.URL.Scheme != "https" && !remote.Loopback(r.URL.Host) && !metadataService(r.URL.Hostname()) {
			return middleware.FinalizeOutput{}, middleware.Metadata{}, &plainTextError{}
		}
		return next.HandleFinalize(ctx, in)
	}), middleware.After)
}

// metadataServices are the addresses at which a machine, a container and a pod get their
// credentials from what they run on, in plain text and without a network between. Sources:
// "Instance metadata" of the EC2 User Guide, and the credential providers for containers
// of the AWS SDKs and Tools Reference Guide.
var metadataServices = []netip.Addr{
	netip.MustParseAddr("169.254.169.254"), netip.MustParseAddr("fd00:ec2::254"),
	netip.MustParseAddr("169.254.170.2"), netip.MustParseAddr("169.254.170.23"), netip.MustParseAddr("fd00:ec2::23"),
}

func metadataService(host string) bool {
	ip, err := netip.ParseAddr(host)
	return err == nil && slices.Contains(metadataServices, ip)
}
