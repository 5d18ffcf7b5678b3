package gcptest

import (
	"crypto/hkdf"
	"crypto/sha256"
	"fmt"
	"strconv"
	"time"

	"cloud.google.com/go/kms/apiv1/kmspb"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// State is the state of a version of a key.
type State = kmspb.CryptoKeyVersion_CryptoKeyVersionState

// destroyAfter is how long a version is scheduled before it is destroyed, unless
// the key says otherwise; Cloud KMS, "Destroy and restore key versions".
const destroyAfter = 30 * 24 * time.Hour

// KeyOptions are the optional parts of CreateKey.
type KeyOptions struct {
	// Location is Location unless it is set.
	Location string
	// HSM puts the key into Cloud HSM.
	HSM bool
	// Purpose is ENCRYPT_DECRYPT unless it is set.
	Purpose kmspb.CryptoKey_CryptoKeyPurpose
}

// Key is a key of a server, with version 1 as its primary.
type Key struct {
	server  *Server
	name    string
	purpose kmspb.CryptoKey_CryptoKeyPurpose
	level   kmspb.ProtectionLevel
	created time.Time
	// What follows is under the server's lock.
	versions []*version
	primary  int // the number of a version; zero if there is none
}

// version is one version of a key. Versions are numbered from 1.
type version struct {
	number    int
	state     State
	destroyed time.Time // when it will be, or was
}

// CreateKey makes a key in the key ring of every server. Nil options work.
func (s *Server) CreateKey(id string, opts *KeyOptions) *Key {
	if opts == nil {
		opts = &KeyOptions{}
	}
	location := opts.Location
	if location == "" {
		location = Location
	}
	k := &Key{
		server: s, purpose: opts.Purpose, level: kmspb.ProtectionLevel_SOFTWARE, created: time.Now(),
		name: fmt.Sprintf("projects/%s/locations/%s/keyRings/%s/cryptoKeys/%s", Project, location, KeyRing, id),
	}
	if opts.HSM {
		k.level = kmspb.ProtectionLevel_HSM
	}
	if k.purpose == kmspb.CryptoKey_CRYPTO_KEY_PURPOSE_UNSPECIFIED {
		k.purpose = kmspb.CryptoKey_ENCRYPT_DECRYPT
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys[k.name] = k
	k.rotate()
	return k
}

// Name returns the resource name of the key.
func (k *Key) Name() string { return k.name }

// Rotate makes a new version and makes it the primary. It returns its number.
func (k *Key) Rotate() int {
	k.server.mu.Lock()
	defer k.server.mu.Unlock()
	return k.rotate()
}

func (k *Key) rotate() int {
	v := &version{number: len(k.versions) + 1, state: kmspb.CryptoKeyVersion_ENABLED}
	k.versions = append(k.versions, v)
	if k.purpose == kmspb.CryptoKey_ENCRYPT_DECRYPT {
		k.primary = v.number
	}
	return v.number
}

// SetState changes the state of a version and returns what changes it back. Real
// versions cannot leave every state; that is the test's to know.
func (k *Key) SetState(number int, state State) (restore func()) {
	k.server.mu.Lock()
	defer k.server.mu.Unlock()
	v := k.version(number)
	before := v.state
	v.state, v.destroyed = state, time.Now()
	if state == kmspb.CryptoKeyVersion_DESTROY_SCHEDULED {
		v.destroyed = v.destroyed.Add(destroyAfter)
	}
	return func() {
		k.server.mu.Lock()
		defer k.server.mu.Unlock()
		v.state = before
	}
}

// SetPrimary makes a version the primary; zero leaves the key without one.
func (k *Key) SetPrimary(number int) {
	k.server.mu.Lock()
	defer k.server.mu.Unlock()
	k.primary = number
}

// version returns a version by its number, or nil. The server's lock is held.
func (k *Key) version(number int) *version {
	if number < 1 || number > len(k.versions) {
		return nil
	}
	return k.versions[number-1]
}

// versionName is the resource name of a version.
func (k *Key) versionName(number int) string {
	return k.name + "/cryptoKeyVersions/" + strconv.Itoa(number)
}

// material derives the AES-256 key of a version.
func (k *Key) material(number int) ([]byte, error) {
	return hkdf.Key(sha256.New, []byte("gcptest: the key material of tests protects nothing"), nil, k.versionName(number), 32)
}

// usable returns the error of a version that may not be used.
func (k *Key) usable(v *version) error {
	if v.state == kmspb.CryptoKeyVersion_ENABLED {
		return nil
	}
	name := k.versionName(v.number)
	return withDetails(
		status.Newf(codes.FailedPrecondition, "%s is not enabled, current state is: %s.", name, v.state),
		&errdetails.PreconditionFailure{Violations: []*errdetails.PreconditionFailure_Violation{{Type: "KEY_" + v.state.String(), Subject: name}}},
	).Err()
}

// pb is the key as a message. The server's lock is held.
func (k *Key) pb() *kmspb.CryptoKey {
	m := &kmspb.CryptoKey{
		Name: k.name, Purpose: k.purpose, CreateTime: timestamppb.New(k.created),
		VersionTemplate: &kmspb.CryptoKeyVersionTemplate{ProtectionLevel: k.level, Algorithm: kmspb.CryptoKeyVersion_GOOGLE_SYMMETRIC_ENCRYPTION},
	}
	if v := k.version(k.primary); v != nil {
		m.Primary = k.versionPB(v)
	}
	return m
}

// versionPB is a version as a message. The server's lock is held.
func (k *Key) versionPB(v *version) *kmspb.CryptoKeyVersion {
	m := &kmspb.CryptoKeyVersion{
		Name: k.versionName(v.number), State: v.state, ProtectionLevel: k.level,
		Algorithm: kmspb.CryptoKeyVersion_GOOGLE_SYMMETRIC_ENCRYPTION, CreateTime: timestamppb.New(k.created),
	}
	switch v.state {
	case kmspb.CryptoKeyVersion_DESTROY_SCHEDULED:
		m.DestroyTime = timestamppb.New(v.destroyed)
	case kmspb.CryptoKeyVersion_DESTROYED:
		m.DestroyEventTime = timestamppb.New(v.destroyed)
	default:
	}
	return m
}
