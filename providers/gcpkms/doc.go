// Package gcpkms is the key provider whose KEK is a symmetric key of Google Cloud
// KMS. The KEK never leaves the service: data keys are wrapped and unwrapped there,
// bound to their aad. It exists so that an operator decides with IAM who may open
// the store, can see every use in Cloud Audit Logs, and withdraws the right at once.
//
// Every request carries CRC32C checksums and every answer is checked by them, as
// Google's data integrity guidelines ask; what was altered on the way is asked for
// once more and then an outage. The KEK ID is the name of the key and the number of
// the version that the service says it used. Status reads the state of the primary
// version and has IAM test the permissions, so that it costs no cryptographic call
// and releases no plaintext.
//
// A data key is 32 bytes of local randomness. Where the location offers those of an
// HSM, 32 of them are added by exclusive or (NIST SP 800-133 revision 2, section
// 6.3): whoever knows or weakens one of the two sources knows nothing of the key.
//
// Credentials are Application Default Credentials unless the key URI names a file.
// Nothing here reads the environment, and no error repeats a message of the service
// or of a token endpoint. docs/providers/gcpkms.md says how to make the key, what to
// permit, and what every error means.
package gcpkms
