// Package awstest is AWS KMS for tests, twice: a server in process that speaks the
// JSON 1.1 protocol with the exact errors, key states, key materials, dry runs and
// multi-Region keys of AWS, and a harness for local-kms, which other people wrote.
// It exists because what a provider makes of a disabled key, a rotation or an
// expired token decides whether data keys stay in memory, and none of that can be
// brought about at will on the real service.
//
// The server is written from the AWS KMS API Reference and Developer Guide. Its
// ciphertexts are real AES-256-GCM with the encryption context as aad, under key
// material derived from the name of the key, so that what it wrapped once opens on
// every later run. It checks that each request is signed (Signature Version 4) for
// its Region, and does not compute the signature.
//
// local-kms differs from AWS in that it answers InvalidCiphertextException where
// AWS answers IncorrectKeyException, knows no DryRun, reports no key material, does
// not rotate on demand, and checks no signature and no permission.
package awstest
