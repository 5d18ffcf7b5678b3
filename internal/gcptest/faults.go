package gcptest

import (
	"context"
	"slices"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"
)

// Fault is what a call meets instead of an answer. The zero value is none.
type Fault struct {
	// Status is answered.
	Status *status.Status
	// Drop breaks every connection.
	Drop bool
	// Hang keeps the call until the caller gives up.
	Hang bool
	// Times is how many calls meet it; zero means all.
	Times int
}

// hook is a fault, or an alteration on the way, of one method.
type hook struct {
	method   string
	left     int // calls that still meet it; negative means all
	fault    Fault
	request  func(any)
	response func(any)
}

// Fail makes calls of a method, such as "Decrypt", or of all ("*"), meet a fault,
// and returns what ends it.
func (s *Server) Fail(method string, f Fault) (restore func()) {
	return s.add(&hook{method: method, left: f.times(), fault: f})
}

// AlterRequest lets f change the request of a method on its way to the service,
// times times, or always if times is zero. The request is a message of kmspb.
func (s *Server) AlterRequest(method string, times int, f func(request any)) (restore func()) {
	return s.add(&hook{method: method, left: Fault{Times: times}.times(), request: f})
}

// AlterResponse is AlterRequest for the answer on its way back.
func (s *Server) AlterResponse(method string, times int, f func(response any)) (restore func()) {
	return s.add(&hook{method: method, left: Fault{Times: times}.times(), response: f})
}

// Revoke takes a permission, such as "cloudkms.cryptoKeyVersions.useToDecrypt",
// from every caller, or all of them ("*"), and returns what gives it back.
func (s *Server) Revoke(permission string) (restore func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.revoked[permission]++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.revoked[permission]--
	}
}

func (f Fault) times() int {
	if f.Times == 0 {
		return -1
	}
	return f.Times
}

func (s *Server) add(h *hook) (restore func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = append(s.faults, h)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.faults = slices.DeleteFunc(s.faults, func(other *hook) bool { return other == h })
	}
}

// suffer brings a fault about.
func (s *Server) suffer(ctx context.Context, f Fault) error {
	switch {
	case f.Drop:
		s.listener.breakAll()
		return status.Error(codes.Unavailable, "the connection is broken")
	case f.Hang:
		<-ctx.Done()
		return status.FromContextError(ctx.Err()).Err()
	case f.Status != nil:
		return f.Status.Err()
	}
	return nil
}

// Answer is a status with details, as the error model of Google APIs has them
// (google.rpc.Status): ErrorInfo, RetryInfo, PreconditionFailure and others.
func Answer(code codes.Code, message string, details ...protoadapt.MessageV1) *status.Status {
	return withDetails(status.New(code, message), details...)
}

// QuotaExceeded is the answer of a service whose quota of requests a minute is
// used up. A wait of zero leaves the hint out.
func QuotaExceeded(wait time.Duration) *status.Status {
	details := []protoadapt.MessageV1{info("RATE_LIMIT_EXCEEDED", map[string]string{
		"service": service, "quota_metric": service + "/crypto_requests", "consumer": "projects/" + Project,
	})}
	if wait > 0 {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(wait)})
	}
	return withDetails(status.New(codes.ResourceExhausted, "Quota exceeded for quota metric 'Cryptographic requests' and limit 'Cryptographic requests per minute' of service '"+service+"'."), details...)
}

// service is the name of Cloud KMS.
const service = "cloudkms.googleapis.com"

// info is a google.rpc.ErrorInfo of the infrastructure.
func info(reason string, values map[string]string) *errdetails.ErrorInfo {
	return &errdetails.ErrorInfo{Reason: reason, Domain: "googleapis.com", Metadata: values}
}

// withDetails adds details; they are messages, so that cannot fail.
func withDetails(s *status.Status, details ...protoadapt.MessageV1) *status.Status {
	with, err := s.WithDetails(details...)
	if err != nil {
		return s
	}
	return with
}
