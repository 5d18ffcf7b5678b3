// Package awskms is the key provider whose KEK is a symmetric key of AWS KMS. The
// KEK never leaves the service: data keys are generated, wrapped and unwrapped
// there, bound to their aad as the encryption context. It exists so that an
// operator decides with IAM and the key's policy who may open the store, sees
// every use in CloudTrail, and can withdraw the right at once.
//
// A key is configured as an alias, a key ID or an ARN, and resolved to its ARN
// once: a process never changes its KEK because an alias was repointed. Every call
// names the key, and the key that the service says it used is compared with it, so
// that neither a foreign wrap nor a repointed alias is ever taken for the store's
// own. A multi-Region key is one key under one name, whatever the Region.
//
// The version in a KEK ID is the ID of the key material that was current. Where
// the service does not report it, there is no version, and a rotation cannot be
// seen; it does no harm, since the service keeps and finds every earlier material.
//
// Credentials come from the SDK's own chain. Nothing here reads the environment,
// and no error repeats a message of the service, which may quote a request.
// docs/providers/awskms.md says how to make the key, what to permit, and what
// every error means.
package awskms
