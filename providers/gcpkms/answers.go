package gcpkms

import (
	"google.golang.org/grpc/codes"

	"github.com/lockwood-kms/lockwood/core"
)

// answer is what an error of the service means to the ring.
type answer struct {
	// means is the sentinel; nil stands for the state of the key deciding it.
	means error
	// login says that the credentials were refused, not their owner: they may have
	// been renewed since, so they are read again once before this is believed.
	login bool
	// permission says that a right is missing, which can be named.
	permission bool
	// remedy tells the operator what it is and what to do.
	remedy string
}

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
var byCode = map[codes.Code]answer{
	codes.PermissionDenied:   {means: core.ErrKeyDenied, permission: true},
	codes.Unauthenticated:    {means: core.ErrKeyDenied, login: true, remedy: hintCredentials},
	codes.NotFound:           {means: core.ErrKeyDenied, remedy: hintNotFound},
	codes.FailedPrecondition: {}, // by the key's state

	// Encrypt alone; Decrypt has a rule of its own.
	codes.InvalidArgument: {means: core.ErrUnavailable, remedy: hintRequest},

	codes.ResourceExhausted: {means: core.ErrUnavailable, remedy: hintThrottle},
	codes.Unavailable:       {means: core.ErrUnavailable, remedy: hintOutage},
	codes.DeadlineExceeded:  {means: core.ErrUnavailable, remedy: hintSlow}, // a server that knows our deadline may be first to see it pass
	codes.Internal:          {means: core.ErrUnavailable, remedy: hintOutage},
	codes.Unknown:           {means: core.ErrUnavailable, remedy: hintOutage},
	codes.Aborted:           {means: core.ErrUnavailable, remedy: hintOutage},
	codes.Canceled:          {means: core.ErrUnavailable, remedy: hintOutage},
	codes.DataLoss:          {means: core.ErrUnavailable, remedy: hintOutage},
	codes.OutOfRange:        {means: core.ErrUnavailable, remedy: hintRequest},
	codes.AlreadyExists:     {means: core.ErrUnavailable, remedy: hintRequest},
	codes.Unimplemented:     {means: core.ErrUnavailable, remedy: "the endpoint has no such method; check that it is one of Cloud KMS"},
}

// byReason is the table from the reasons of google.rpc.ErrorInfo, which are more
// exact than codes. Source: google.api.ErrorReason.
var byReason = map[string]answer{
	"IAM_PERMISSION_DENIED": {means: core.ErrKeyDenied, permission: true},

	"SERVICE_DISABLED":                    {means: core.ErrKeyDenied, remedy: "the Cloud KMS API is not enabled: gcloud services enable cloudkms.googleapis.com --project=PROJECT, for the key's project and for the quota project"},
	"SERVICE_NOT_VISIBLE":                 {means: core.ErrKeyDenied, remedy: hintProject},
	"BILLING_DISABLED":                    {means: core.ErrKeyDenied, remedy: hintProject},
	"CONSUMER_INVALID":                    {means: core.ErrKeyDenied, remedy: hintProject},
	"CONSUMER_SUSPENDED":                  {means: core.ErrKeyDenied, remedy: hintProject},
	"RESOURCE_PROJECT_INVALID":            {means: core.ErrKeyDenied, remedy: hintProject},
	"USER_PROJECT_DENIED":                 {means: core.ErrKeyDenied, remedy: "the identity may not charge the quota project: it lacks serviceusage.services.use there; grant it with gcloud projects add-iam-policy-binding QUOTA_PROJECT --member=PRINCIPAL --role=roles/serviceusage.serviceUsageConsumer, or correct the option quota_project"},
	"ACCESS_TOKEN_SCOPE_INSUFFICIENT":     {means: core.ErrKeyDenied, remedy: "the access scopes of the machine leave Cloud KMS out: give it the scope https://www.googleapis.com/auth/cloud-platform, or cloudkms"},
	"SECURITY_POLICY_VIOLATED":            {means: core.ErrKeyDenied, remedy: hintPolicy},
	"ORG_RESTRICTION_VIOLATION":           {means: core.ErrKeyDenied, remedy: hintPolicy},
	"LOCATION_POLICY_VIOLATED":            {means: core.ErrKeyDenied, remedy: hintPolicy},
	"LOCATION_ORG_POLICY_VIOLATED":        {means: core.ErrKeyDenied, remedy: hintPolicy},
	"CREDENTIALS_MISSING":                 {means: core.ErrKeyDenied, login: true, remedy: hintCredentials},
	"ACCESS_TOKEN_EXPIRED":                {means: core.ErrKeyDenied, login: true, remedy: hintCredentials},
	"ACCESS_TOKEN_TYPE_UNSUPPORTED":       {means: core.ErrKeyDenied, login: true, remedy: hintCredentials},
	"ACCOUNT_STATE_INVALID":               {means: core.ErrKeyDenied, login: true, remedy: hintCredentials},
	"RATE_LIMIT_EXCEEDED":                 {means: core.ErrUnavailable, remedy: hintThrottle},
	"RESOURCE_QUOTA_EXCEEDED":             {means: core.ErrUnavailable, remedy: hintThrottle},
	"RESOURCE_USAGE_RESTRICTION_VIOLATED": {means: core.ErrKeyDenied, remedy: hintPolicy},
}

// byVersionState is the table from the states of a version that may not be used.
// Source: Cloud KMS, "Key states".
var byVersionState = map[string]answer{
	"DISABLED":                     {means: core.ErrKeyDenied, remedy: "it is disabled: gcloud kms keys versions enable VERSION"},
	"DESTROY_SCHEDULED":            {means: core.ErrKeyDenied, remedy: "it is scheduled for destruction: at once, gcloud kms keys versions restore VERSION, and then gcloud kms keys versions enable VERSION"},
	"DESTROYED":                    {means: core.ErrKeyDenied, remedy: "it is destroyed, and what it wrapped cannot be unwrapped by anyone: another wrap or the recovery key must open the store"},
	"IMPORT_FAILED":                {means: core.ErrKeyDenied, remedy: "its import failed: import it again, or make another version the primary with gcloud kms keys set-primary-version"},
	"PENDING_IMPORT":               {means: core.ErrKeyDenied, remedy: "its key material was not imported yet: import it"},
	"GENERATION_FAILED":            {means: core.ErrKeyDenied, remedy: "its key material could not be generated: make another version the primary with gcloud kms keys set-primary-version"},
	"PENDING_EXTERNAL_DESTRUCTION": {means: core.ErrKeyDenied, remedy: "it is being destroyed in the external key manager"},
	"EXTERNAL_DESTRUCTION_FAILED":  {means: core.ErrKeyDenied, remedy: "it was to be destroyed in the external key manager, which failed; it cannot be used any more"},
	"PENDING_GENERATION":           {means: core.ErrUnavailable, remedy: "it is being generated; it is asked again"},
}
