package awstest

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/lockwood-kms/lockwood/core/providertest"
)

// request holds the members of every operation's request that the server knows.
type request struct {
	KeyID             string `json:"KeyId"`
	KeySpec           string
	NumberOfBytes     int
	Plaintext         []byte
	CiphertextBlob    []byte
	EncryptionContext map[string]string
	DryRun            bool
	DryRunModifiers   []string
}

// response holds the members of every operation's response.
type response struct {
	KeyID               string `json:"KeyId"`
	Plaintext           []byte `json:",omitempty"`
	CiphertextBlob      []byte `json:",omitempty"`
	KeyMaterialID       string `json:"KeyMaterialId,omitempty"`
	EncryptionAlgorithm string `json:",omitempty"`
}

// dispatch runs an operation. Checks come in the order in which AWS makes them as
// far as that can be seen: the key, the permission, its state, the request itself.
func (s *Server) dispatch(who caller, operation string, body []byte) (any, *Fault) {
	var in request
	if err := json.Unmarshal(body, &in); err != nil {
		return nil, &Fault{Code: "SerializationException"}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.NoDryRun {
		in.DryRun, in.DryRunModifiers = false, nil
	}
	name := operation
	if in.DryRun {
		name = "DryRun:" + operation
	}
	s.calls[name]++
	key, fault := s.find(who, operation, in.KeyID)
	if fault != nil {
		return nil, fault
	}
	if fault := s.authorize(who, operation, key, in.EncryptionContext); fault != nil {
		return nil, fault
	}
	switch operation {
	case "DescribeKey":
		return map[string]any{"KeyMetadata": key.metadata(!s.NoMaterials)}, nil
	case "GenerateDataKey", "Encrypt", "Decrypt":
		if fault := key.usable(); fault != nil {
			return nil, fault
		}
	default:
		return nil, &Fault{Code: "UnknownOperationException", Status: http.StatusNotFound}
	}
	out, fault := key.run(operation, in)
	if fault == nil && in.DryRun {
		fault = &Fault{Code: "DryRunOperationException", Status: http.StatusPreconditionFailed, Message: "The request would have succeeded, but the DryRun option is set."}
	}
	if s.NoMaterials {
		out.KeyMaterialID = ""
	}
	return out, fault
}

// find returns the key that an ID, an ARN or an alias names in the caller's Region.
func (s *Server) find(who caller, operation, id string) (*Key, *Fault) {
	notFound := &Fault{Code: "NotFoundException", Message: "Invalid keyId " + id}
	if id == "" && operation != "Decrypt" {
		return nil, &Fault{Code: "ValidationException", Message: "1 validation error detected: Value null at 'keyId'"}
	}
	if rest, ok := strings.CutPrefix(id, "arn:aws:kms:"); ok {
		region, rest, _ := strings.Cut(rest, ":")
		account, resource, _ := strings.Cut(rest, ":")
		if region != who.region {
			return nil, &Fault{Code: "NotFoundException", Message: "Invalid arn " + region}
		}
		if account != Account {
			return nil, notFound
		}
		id = strings.TrimPrefix(resource, "key/")
	}
	if strings.HasPrefix(id, "alias/") {
		target, ok := s.aliases[who.region+" "+id]
		if !ok {
			return nil, &Fault{Code: "NotFoundException", Message: "Alias " + id + " is not found."}
		}
		id = target
	}
	key, ok := s.keys[who.region+" "+id]
	if !ok {
		return nil, notFound
	}
	return key, nil
}

// authorize refuses what was revoked, in the words of AWS.
func (s *Server) authorize(who caller, operation string, key *Key, ec map[string]string) *Fault {
	for _, name := range []string{operation, "*"} {
		permits, restricted := s.denied[name]
		if !restricted || permits(ec) {
			continue
		}
		return &Fault{Code: "AccessDeniedException", Message: fmt.Sprintf("User: arn:aws:iam::%s:user/%s is not authorized to perform: kms:%s on resource: %s because no identity-based policy allows the kms:%s action",
			Account, strings.ToLower(who.accessKey), operation, key.ARN(), operation)}
	}
	return nil
}

// usable returns the exception that a state brings to a cryptographic operation.
func (k *Key) usable() *Fault {
	switch k.state {
	case Enabled, Updating:
	case Disabled:
		return &Fault{Code: "DisabledException", Message: k.ARN() + " is disabled."}
	default:
		words := map[string]string{PendingDeletion: "pending deletion", PendingReplicaDeletion: "pending replica deletion", PendingImport: "pending import", Unavailable: "unavailable", Creating: "creating"}
		return &Fault{Code: "KMSInvalidStateException", Message: k.ARN() + " is " + words[k.state] + "."}
	}
	if k.usage != "ENCRYPT_DECRYPT" {
		return &Fault{Code: "InvalidKeyUsageException", Message: k.ARN() + " key usage is " + k.usage}
	}
	return nil
}

// run does the cryptography.
func (k *Key) run(operation string, in request) (response, *Fault) {
	current := k.material.id(k.material.current)
	switch operation {
	case "Decrypt":
		return k.decrypt(in)
	case "Encrypt":
		if n := len(in.Plaintext); n < 1 || n > 4096 {
			return response{}, &Fault{Code: "ValidationException", Message: "1 validation error detected: plaintext"}
		}
		blob, err := k.wrap(in.Plaintext, in.EncryptionContext)
		return response{KeyID: k.ARN(), CiphertextBlob: blob, EncryptionAlgorithm: k.spec}, internal(err)
	}
	if in.KeySpec != "AES_256" {
		return response{}, &Fault{Code: "ValidationException", Message: "Please specify either number of bytes or key spec."}
	}
	plaintext := make([]byte, 32)
	_, _ = rand.Read(plaintext) // never fails; crypto/rand
	blob, err := k.wrap(plaintext, in.EncryptionContext)
	return response{KeyID: k.ARN(), Plaintext: plaintext, CiphertextBlob: blob, KeyMaterialID: current}, internal(err)
}

func (k *Key) decrypt(in request) (response, *Fault) {
	if in.DryRun && len(in.DryRunModifiers) == 1 && in.DryRunModifiers[0] == "IGNORE_CIPHERTEXT" {
		return response{}, nil
	}
	if n := len(in.CiphertextBlob); n < 1 || n > 6144 {
		return response{}, &Fault{Code: "ValidationException", Message: "1 validation error detected: ciphertextBlob"}
	}
	id, _, err := keyIDOf(in.CiphertextBlob)
	switch {
	case k.server.lenient == providertest.OpensAltered:
	case err != nil:
		return response{}, &Fault{Code: "InvalidCiphertextException"}
	case id != k.id:
		return response{}, &Fault{Code: "IncorrectKeyException", Message: "The key ID in the request does not identify a CMK that can perform this operation."}
	}
	plaintext, version, err := k.unwrap(in.CiphertextBlob, in.EncryptionContext)
	if err != nil {
		return response{}, &Fault{Code: "InvalidCiphertextException"}
	}
	return response{KeyID: k.ARN(), Plaintext: plaintext, KeyMaterialID: k.material.id(version), EncryptionAlgorithm: k.spec}, nil
}

func internal(err error) *Fault {
	if err == nil {
		return nil
	}
	return &Fault{Code: "KMSInternalException", Status: http.StatusInternalServerError}
}

// metadata is the KeyMetadata of DescribeKey.
func (k *Key) metadata(materials bool) map[string]any {
	multi := strings.HasPrefix(k.id, "mrk-")
	md := map[string]any{
		"AWSAccountId": Account, "KeyId": k.id, "Arn": k.ARN(), "CreationDate": epoch(time.Unix(1_700_000_000, 0)),
		"Enabled": k.state == Enabled, "KeyState": k.state, "KeyUsage": k.usage, "KeySpec": k.spec, "KeyManager": "CUSTOMER",
		"Origin": "AWS_KMS", "MultiRegion": multi, "EncryptionAlgorithms": []string{"SYMMETRIC_DEFAULT"},
	}
	if materials {
		md["CurrentKeyMaterialId"] = k.material.id(k.material.current)
	}
	if !k.deletion.IsZero() {
		md["DeletionDate"] = epoch(k.deletion)
	}
	if !k.expiry.IsZero() {
		md["Origin"], md["ExpirationModel"], md["ValidTo"] = "EXTERNAL", "KEY_MATERIAL_EXPIRES", epoch(k.expiry)
	}
	return md
}
