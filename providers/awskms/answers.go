package awskms

import (
	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/providers/remote"
)

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
var kmsAnswers = remote.Answers(
	// The key, and the right to use it.
	remote.Means(remote.Lacking(), "AccessDeniedException", "AccessDenied", "NotAuthorized"),
	remote.Means(remote.Denied(remedyDisabled), "DisabledException"),
	remote.Means(remote.Denied("there is no such key, alias, account or Region: check the key URI and the option region; a key whose waiting period has ended is destroyed"), "NotFoundException"),
	remote.Means(stateDecides, "KMSInvalidStateException"),
	remote.Means(remote.Denied(remedyUsage), "InvalidKeyUsageException", "UnsupportedOperationException"),
	remote.Means(remote.Denied("a grant token was refused; none is sent, so look at what stands between this process and the service"), "InvalidGrantTokenException"),
	remote.Means(remote.Denied("the grant is not valid; make a new one"), "InvalidGrantIdException"),
	remote.Means(remote.Denied("the ARN is not valid here: check the partition, the Region and the account of the key URI"), "InvalidArnException"),
	remote.Means(remote.Denied("the account is not signed up for AWS KMS in this Region"), "OptInRequired"),

	// The wrap.
	remote.Means(remote.Answer{Means: core.ErrInvalidCiphertext}, "InvalidCiphertextException", "IncorrectKeyException"),

	// No answer.
	remote.Means(remote.Unavailable("the key is not available at the moment; for a key in a custom key store, look at the store's connection"), "KeyUnavailableException"),
	remote.Means(remote.Unavailable(remedyUnavailable), "CustomKeyStoreInvalidStateException", "CustomKeyStoreNotFoundException",
		"CloudHsmClusterNotActiveException", "XksProxyUriUnreachableException", "XksProxyInvalidResponseException"),
	remote.Means(remote.Unavailable(hintOutage), "DependencyTimeoutException", "KMSInternalException", "InternalFailure", "InternalServerError",
		"ServiceUnavailable", "ServiceUnavailableException", "RequestTimeout", "RequestTimeoutException", "RequestAbortedException"),
	remote.Means(remote.Unavailable(hintThrottle), "Throttling", "ThrottlingException", "ThrottledException", "RequestThrottled",
		"RequestThrottledException", "RequestLimitExceeded", "TooManyRequestsException", "LimitExceededException"),
	remote.Means(remote.Unavailable(hintClock), "RequestExpired", "RequestTimeTooSkewed", "RequestInTheFuture"),
	remote.Means(remote.Unavailable(hintRequest), "ValidationException", "ValidationError", "SerializationException", "MalformedHttpRequestException",
		"RequestEntityTooLargeException", "UnknownOperationException", "IncompleteSignature",
		"DryRunOperationException"), // not asked for where this is looked up

	// The credentials.
	remote.Means(remote.Refused(hintExpired), "ExpiredToken", "ExpiredTokenException"),
	remote.Means(remote.Refused(hintUnknown), "UnrecognizedClientException", "InvalidClientTokenId", "InvalidAccessKeyId",
		"MissingAuthenticationToken", "MissingAuthenticationTokenException"),
	remote.Means(remote.Refused("the secret access key is not the one of the access key ID"), "InvalidSignatureException", "SignatureDoesNotMatch"),
)

// stateDecides is the answer whose meaning is the state of the key.
var stateDecides = remote.Answer{}

// loginAnswers is the table for the services that give out credentials: STS, IAM
// Identity Center and its OIDC service. Codes that are not in it mean what they
// mean at KMS.
var loginAnswers = remote.Answers(
	remote.Means(remote.Lacking(), "AccessDenied", "AccessDeniedException"),
	remote.Means(remote.Refused("the web identity token was refused; check the role's trust policy and the token's audience"), "InvalidIdentityToken"),
	remote.Means(remote.Refused("the identity provider refused the web identity token"), "IDPRejectedClaim"),
	remote.Means(remote.Unavailable(hintOutage), "IDPCommunicationError"),
	remote.Means(remote.Denied("STS is not activated for the account in this Region; activate it, or set AWS_STS_REGIONAL_ENDPOINTS"), "RegionDisabledException"),
	remote.Means(remote.Denied("the session's policies and tags are too large for STS"), "PackedPolicyTooLarge"),
	remote.Means(remote.Denied("the session's policy is malformed"), "MalformedPolicyDocument"),
	remote.Means(remote.Refused(hintSSO), "UnauthorizedException", "InvalidGrantException", "UnauthorizedClientException"),
	remote.Means(remote.Denied("the identity may not use the account and role of its profile; ask for an assignment in IAM Identity Center"), "ForbiddenException"),
)

const hintSSO = "the session of IAM Identity Center has ended; begin a new one with: aws sso login"
