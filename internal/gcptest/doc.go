// Package gcptest is a Google Cloud KMS for tests: real gRPC on a loopback port,
// real AES-256-GCM, and the behaviour that Google documents for the Cloud KMS API
// (google.cloud.kms.v1) and for IAM. It exists because no registry serves such a
// server, and because a provider that is tested against a server written to suit
// it proves nothing: what is here follows the API reference, the pages on key
// states and data integrity, and the error model, and knows nothing of a provider.
//
// Key material is derived from the name of its version, so that a ciphertext made
// by one server opens in another, years later. It protects nothing.
//
// Faults, refusals and bytes altered on the way are brought about by the methods of
// Server; each returns what ends it.
package gcptest
