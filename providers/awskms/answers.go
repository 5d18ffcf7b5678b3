package awskms

import "github.com/lockwood-kms/lockwood/core"

// answer is what an error code of AWS means to the ring.
type answer struct {
	// means is the sentinel; nil stands for the state of the key deciding it.
	means error
	// login says that the credentials were refused, not their owner: they may have
	// been renewed since, so they are fetched again once before this is believed.
	login bool
	// permission says that a right is missing, which can be named.
	permission bool
	// remedy tells the operator what it is and what to do.
	remedy string
}

// Remedies that several codes share.
const (
	hintOutage   = "the service has a failure of its own; it is asked again"
	hintThrottle = "the quota of requests is used up; look at it in Service Quotas, for AWS KMS in this Region"
	hintExpired  = "the credentials have expired, and fetching them again gave no better ones; renew them where they come from"
	hintUnknown  = "the credentials are not known to AWS; check the access key, the session token and the partition"
	hintClock    = "the request's time is not the service's; correct the clock of this machine"
	hintRequest  = "the service does not take the request; check that the endpoint is one of AWS KMS"
)

// kmsAnswers is the one table from the codes of AWS KMS to what the ring is told.
// Sources: the Errors sections of Decrypt, Encrypt, GenerateDataKey and DescribeKey
// in the AWS KMS API Reference, and its Common Errors. What is not in it decides
// nothing and is an outage.
var kmsAnswers = map[string]answer{
	// The key, and the right to use it.
	"AccessDeniedException":         {means: core.ErrKeyDenied, permission: true},
	"AccessDenied":                  {means: core.ErrKeyDenied, permission: true},
	"NotAuthorized":                 {means: core.ErrKeyDenied, permission: true},
	"DisabledException":             {means: core.ErrKeyDenied, remedy: remedyDisabled},
	"NotFoundException":             {means: core.ErrKeyDenied, remedy: "there is no such key, alias, account or Region: check the key URI and the option region; a key whose waiting period has ended is destroyed"},
	"KMSInvalidStateException":      {}, // by the key's state
	"InvalidKeyUsageException":      {means: core.ErrKeyDenied, remedy: remedyUsage},
	"UnsupportedOperationException": {means: core.ErrKeyDenied, remedy: remedyUsage},
	"InvalidGrantTokenException":    {means: core.ErrKeyDenied, remedy: "a grant token was refused; none is sent, so look at what stands between this process and the service"},
	"InvalidGrantIdException":       {means: core.ErrKeyDenied, remedy: "the grant is not valid; make a new one"},
	"InvalidArnException":           {means: core.ErrKeyDenied, remedy: "the ARN is not valid here: check the partition, the Region and the account of the key URI"},
	"OptInRequired":                 {means: core.ErrKeyDenied, remedy: "the account is not signed up for AWS KMS in this Region"},

	// The wrap.
	"InvalidCiphertextException": {means: core.ErrInvalidCiphertext},
	"IncorrectKeyException":      {means: core.ErrInvalidCiphertext},

	// No answer.
	"KeyUnavailableException":             {means: core.ErrUnavailable, remedy: "the key is not available at the moment; for a key in a custom key store, look at the store's connection"},
	"CustomKeyStoreInvalidStateException": {means: core.ErrUnavailable, remedy: remedyUnavailable},
	"CustomKeyStoreNotFoundException":     {means: core.ErrUnavailable, remedy: remedyUnavailable},
	"CloudHsmClusterNotActiveException":   {means: core.ErrUnavailable, remedy: remedyUnavailable},
	"XksProxyUriUnreachableException":     {means: core.ErrUnavailable, remedy: remedyUnavailable},
	"XksProxyInvalidResponseException":    {means: core.ErrUnavailable, remedy: remedyUnavailable},
	"DependencyTimeoutException":          {means: core.ErrUnavailable, remedy: hintOutage},
	"KMSInternalException":                {means: core.ErrUnavailable, remedy: hintOutage},
	"InternalFailure":                     {means: core.ErrUnavailable, remedy: hintOutage},
	"InternalServerError":                 {means: core.ErrUnavailable, remedy: hintOutage},
	"ServiceUnavailable":                  {means: core.ErrUnavailable, remedy: hintOutage},
	"ServiceUnavailableException":         {means: core.ErrUnavailable, remedy: hintOutage},
	"RequestTimeout":                      {means: core.ErrUnavailable, remedy: hintOutage},
	"RequestTimeoutException":             {means: core.ErrUnavailable, remedy: hintOutage},
	"RequestAbortedException":             {means: core.ErrUnavailable, remedy: hintOutage},
	"Throttling":                          {means: core.ErrUnavailable, remedy: hintThrottle},
	"ThrottlingException":                 {means: core.ErrUnavailable, remedy: hintThrottle},
	"ThrottledException":                  {means: core.ErrUnavailable, remedy: hintThrottle},
	"RequestThrottled":                    {means: core.ErrUnavailable, remedy: hintThrottle},
	"RequestThrottledException":           {means: core.ErrUnavailable, remedy: hintThrottle},
	"RequestLimitExceeded":                {means: core.ErrUnavailable, remedy: hintThrottle},
	"TooManyRequestsException":            {means: core.ErrUnavailable, remedy: hintThrottle},
	"LimitExceededException":              {means: core.ErrUnavailable, remedy: hintThrottle},
	"RequestExpired":                      {means: core.ErrUnavailable, remedy: hintClock},
	"RequestTimeTooSkewed":                {means: core.ErrUnavailable, remedy: hintClock},
	"RequestInTheFuture":                  {means: core.ErrUnavailable, remedy: hintClock},
	"ValidationException":                 {means: core.ErrUnavailable, remedy: hintRequest},
	"ValidationError":                     {means: core.ErrUnavailable, remedy: hintRequest},
	"SerializationException":              {means: core.ErrUnavailable, remedy: hintRequest},
	"MalformedHttpRequestException":       {means: core.ErrUnavailable, remedy: hintRequest},
	"RequestEntityTooLargeException":      {means: core.ErrUnavailable, remedy: hintRequest},
	"UnknownOperationException":           {means: core.ErrUnavailable, remedy: hintRequest},
	"IncompleteSignature":                 {means: core.ErrUnavailable, remedy: hintRequest},
	"DryRunOperationException":            {means: core.ErrUnavailable, remedy: hintRequest}, // not asked for where this is looked up

	// The credentials.
	"ExpiredToken":                        {means: core.ErrKeyDenied, login: true, remedy: hintExpired},
	"ExpiredTokenException":               {means: core.ErrKeyDenied, login: true, remedy: hintExpired},
	"UnrecognizedClientException":         {means: core.ErrKeyDenied, login: true, remedy: hintUnknown},
	"InvalidClientTokenId":                {means: core.ErrKeyDenied, login: true, remedy: hintUnknown},
	"InvalidAccessKeyId":                  {means: core.ErrKeyDenied, login: true, remedy: hintUnknown},
	"MissingAuthenticationToken":          {means: core.ErrKeyDenied, login: true, remedy: hintUnknown},
	"MissingAuthenticationTokenException": {means: core.ErrKeyDenied, login: true, remedy: hintUnknown},
	"InvalidSignatureException":           {means: core.ErrKeyDenied, login: true, remedy: "the secret access key is not the one of the access key ID"},
	"SignatureDoesNotMatch":               {means: core.ErrKeyDenied, login: true, remedy: "the secret access key is not the one of the access key ID"},
}

// loginAnswers is the table for the services that give out credentials: STS, IAM
// Identity Center and its OIDC service. Codes that are not in it mean what they
// mean at KMS.
var loginAnswers = map[string]answer{
	"AccessDenied":                {means: core.ErrKeyDenied, permission: true},
	"AccessDeniedException":       {means: core.ErrKeyDenied, permission: true},
	"InvalidIdentityToken":        {means: core.ErrKeyDenied, login: true, remedy: "the web identity token was refused; check the role's trust policy and the token's audience"},
	"IDPRejectedClaim":            {means: core.ErrKeyDenied, login: true, remedy: "the identity provider refused the web identity token"},
	"IDPCommunicationError":       {means: core.ErrUnavailable, remedy: hintOutage},
	"RegionDisabledException":     {means: core.ErrKeyDenied, remedy: "STS is not activated for the account in this Region; activate it, or set AWS_STS_REGIONAL_ENDPOINTS"},
	"PackedPolicyTooLarge":        {means: core.ErrKeyDenied, remedy: "the session's policies and tags are too large for STS"},
	"MalformedPolicyDocument":     {means: core.ErrKeyDenied, remedy: "the session's policy is malformed"},
	"UnauthorizedException":       {means: core.ErrKeyDenied, login: true, remedy: hintSSO},
	"InvalidGrantException":       {means: core.ErrKeyDenied, login: true, remedy: hintSSO},
	"UnauthorizedClientException": {means: core.ErrKeyDenied, login: true, remedy: hintSSO},
	"ForbiddenException":          {means: core.ErrKeyDenied, remedy: "the identity may not use the account and role of its profile; ask for an assignment in IAM Identity Center"},
}

const hintSSO = "the session of IAM Identity Center has ended; begin a new one with: aws sso login"
