package gcpkms

import (
	"google.golang.org/grpc/codes"

	"github.com/lockwood-kms/lockwood/providers/remote"
)

// Remedies that several answers share.
const (
	hintOutage      = "the service has a failure of its own or cannot be reached; it is asked again"
	hintSlow        = "the service did not answer in time; it is asked again"
	hintThrottle    = "the quota of requests is used up; look at Cloud KMS under IAM & Admin, Quotas, of the project that is charged"
	hintCredentials = "the credentials are not accepted, and reading them again gave no better ones; renew them, or look whether the service account or its key was disabled or deleted"
	hintRequest     = "the service does not take the request; check that the key is of the purpose encryption/decryption and that the endpoint is one of Cloud KMS"
	hintNotFound    = "there is no such key: check the project, the location, the key ring and the key in the key URI; a key cannot be deleted, only its versions destroyed"
	hintProject     = "the project cannot be used: look at its state and its billing account"
	hintPolicy      = "a policy of the organization refuses the request: look at VPC Service Controls and the organization's policies for Cloud KMS"
)

// byCode is the table from the codes of gRPC to what the ring is told, where the
// details say nothing more. Sources: google.rpc.Code, and Cloud KMS, "Error
// responses". What is not in it decides nothing and is an outage.
var byCode = remote.Answers(
	remote.Means(remote.Lacking(), codes.PermissionDenied),
	remote.Means(remote.Refused(hintCredentials), codes.Unauthenticated),
	remote.Means(remote.Denied(hintNotFound), codes.NotFound),
	remote.Means(remote.Answer{}, codes.FailedPrecondition), // by the key's state
	remote.Means(remote.Unavailable(hintRequest), codes.OutOfRange, codes.AlreadyExists,
		codes.InvalidArgument), // of Encrypt alone; Decrypt has a rule of its own
	remote.Means(remote.Unavailable(hintThrottle), codes.ResourceExhausted),
	remote.Means(remote.Unavailable(hintOutage), codes.Unavailable, codes.Internal, codes.Unknown, codes.Aborted, codes.Canceled, codes.DataLoss),
	remote.Means(remote.Unavailable(hintSlow), codes.DeadlineExceeded), // a server that knows our deadline may be first to see it pass
	remote.Means(remote.Unavailable("the endpoint has no such method; check that it is one of Cloud KMS"), codes.Unimplemented),
)

// byReason is the table from the reasons of google.rpc.ErrorInfo, which are more
// exact than codes. Source: google.api.ErrorReason.
var byReason = remote.Answers(
	remote.Means(remote.Lacking(), "IAM_PERMISSION_DENIED"),
	remote.Means(remote.Denied("the Cloud KMS API is not enabled: gcloud services enable cloudkms.googleapis.com --project=PROJECT, for the key's project and for the quota project"), "SERVICE_DISABLED"),
	remote.Means(remote.Denied(hintProject), "SERVICE_NOT_VISIBLE", "BILLING_DISABLED", "CONSUMER_INVALID", "CONSUMER_SUSPENDED", "RESOURCE_PROJECT_INVALID"),
	remote.Means(remote.Denied("the identity may not charge the quota project: it lacks serviceusage.services.use there; grant it with gcloud projects add-iam-policy-binding QUOTA_PROJECT --member=PRINCIPAL --role=roles/serviceusage.serviceUsageConsumer, or correct the option quota_project"), "USER_PROJECT_DENIED"),
	remote.Means(remote.Denied("the access scopes of the machine leave Cloud KMS out: give it the scope https://www.googleapis.com/auth/cloud-platform, or cloudkms"), "ACCESS_TOKEN_SCOPE_INSUFFICIENT"),
	remote.Means(remote.Denied(hintPolicy), "SECURITY_POLICY_VIOLATED", "ORG_RESTRICTION_VIOLATION", "LOCATION_POLICY_VIOLATED",
		"LOCATION_ORG_POLICY_VIOLATED", "RESOURCE_USAGE_RESTRICTION_VIOLATED"),
	remote.Means(remote.Refused(hintCredentials), "CREDENTIALS_MISSING", "ACCESS_TOKEN_EXPIRED", "ACCESS_TOKEN_TYPE_UNSUPPORTED", "ACCOUNT_STATE_INVALID"),
	remote.Means(remote.Unavailable(hintThrottle), "RATE_LIMIT_EXCEEDED", "RESOURCE_QUOTA_EXCEEDED"),
)

// byVersionState is the table from the states of a version that may not be used.
// Source: Cloud KMS, "Key states".
var byVersionState = map[string]remote.Answer{
	"DISABLED":                     remote.Denied("it is disabled: gcloud kms keys versions enable VERSION"),
	"DESTROY_SCHEDULED":            remote.Denied("it is scheduled for destruction: at once, gcloud kms keys versions restore VERSION, and then gcloud kms keys versions enable VERSION"),
	"DESTROYED":                    remote.Denied("it is destroyed, and what it wrapped cannot be unwrapped by anyone: another wrap or the recovery key must open the store"),
	"IMPORT_FAILED":                remote.Denied("its import failed: import it again, or make another version the primary with gcloud kms keys set-primary-version"),
	"PENDING_IMPORT":               remote.Denied("its key material was not imported yet: import it"),
	"GENERATION_FAILED":            remote.Denied("its key material could not be generated: make another version the primary with gcloud kms keys set-primary-version"),
	"PENDING_EXTERNAL_DESTRUCTION": remote.Denied("it is being destroyed in the external key manager"),
	"EXTERNAL_DESTRUCTION_FAILED":  remote.Denied("it was to be destroyed in the external key manager, which failed; it cannot be used any more"),
	"PENDING_GENERATION":           remote.Unavailable("it is being generated; it is asked again"),
}
