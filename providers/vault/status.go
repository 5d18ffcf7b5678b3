package vault

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/providers/remote"
)

// versions remembers the lowest and the highest version of the key that a wrap was
// made or opened under.
type versions struct {
	mu              sync.Mutex
	lowest, highest int
}

func (v *versions) add(version string) {
	n, err := strconv.Atoi(version)
	if err != nil {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.lowest == 0 || n < v.lowest {
		v.lowest = n
	}
	v.highest = max(v.highest, n)
}

func (v *versions) get() (lowest, highest int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.lowest, v.highest
}

// Status implements remote.Key. It asks for the token's rights and, where the token may
// read it, for the state of the key; neither is a cryptographic call. Without the right
// to read the key, the version is the highest that was seen here, and there is none
// before the first wrap.
func (k *transitKey) Status(ctx context.Context) (core.Status, error) {
	mayRead, warnings, err := k.rights(ctx)
	if err != nil {
		return core.Status{}, err
	}
	lowest, highest := k.used.get()
	version := highest
	var key *keyState
	if mayRead {
		if key, err = k.inspect(ctx); err != nil {
			return core.Status{}, err
		}
	}
	if key == nil {
		warnings = append(warnings, "the right to read the key is missing: neither its state nor a rotation can be seen; add to the policy: "+k.settings.stanza(k.settings.readKey()))
	} else {
		if err := key.usable(&k.settings); err != nil {
			return core.Status{}, err
		}
		version = key.LatestVersion
		warnings = append(warnings, key.warnings(&k.settings, lowest)...)
	}
	if k.spaceIgnored(ctx) {
		warnings = append(warnings, fmt.Sprintf("the server has no namespaces and ignores the option namespace=%s: leave it out for a new store; it is part of the key's name, so for a store in use list this key URI as a previous key provider first", k.settings.namespace))
	}
	warnings = append(warnings, remote.FileWarnings(map[string]string{
		"token_file": k.settings.tokenFile, "secret_id_file": k.settings.secretIDFile, "client_key": k.settings.clientKey,
	})...)
	id := core.NewKEKID(k.settings.key(), "")
	if version > 0 {
		id = core.NewKEKID(k.settings.key(), strconv.Itoa(version))
	}
	return core.Status{KEKID: id, Warnings: warnings}, nil
}

// spaceIgnored finds out, once, whether the server ignores namespaces, as Vault's
// community edition does: then it answers in one that there is not as in any other. What
// cannot be learnt is asked again, and no failure of the key.
func (k *transitKey) spaceIgnored(ctx context.Context) bool {
	if k.settings.namespace == "" {
		return false
	}
	if known := k.ignores.Load(); known != nil {
		return *known
	}
	t, err := k.login.get(ctx)
	if err == nil {
		err = k.settings.send(ctx, t.connection, k.settings.describeNowhere(), nil, nil)
	}
	ignored := err == nil
	if ignored || declined(err) {
		k.ignores.Store(&ignored)
	}
	return ignored
}

// rights asks what the token may do. Lacking the right to unwrap is a denial, and
// lacking another a warning: a previous key needs no more than to unwrap.
func (k *transitKey) rights(ctx context.Context) (mayRead bool, warnings []string, err error) {
	s := &k.settings
	needed := []operation{s.decrypt(), s.encrypt(), s.randomBytes(), s.readKey()}
	var paths []string
	for _, op := range needed {
		paths = append(paths, s.policyPath(op))
	}
	var got struct {
		Data map[string]json.RawMessage `json:"data"`
	}
	permitted, err := k.ask(ctx, capabilities(), map[string]any{"paths": paths}, &got)
	if err != nil {
		return false, nil, err
	}
	if !permitted {
		return true, []string{"the right to ask for rights is missing: a withdrawn right is noticed only when it is used; attach the policy default, or add: " + s.stanza(capabilities())}, nil
	}
	has := make(map[string][]string)
	for path, raw := range got.Data {
		var list []string
		if json.Unmarshal(raw, &list) == nil {
			has[path] = list
		}
	}
	if !s.grants(has, needed[0]) {
		return false, nil, fmt.Errorf("unwrapping is not permitted: %s: %w", s.missing(needed[0]), core.ErrKeyDenied)
	}
	return s.grants(has, s.readKey()), s.judgeRights(has), nil
}

// grants reports whether the capabilities of a path suffice for an operation.
func (s *settings) grants(has map[string][]string, op operation) bool {
	list := has[s.policyPath(op)]
	return slices.Contains(list, "root") || slices.Contains(list, op.capability) && !slices.Contains(list, "deny")
}

// judgeRights warns of rights that are missing, and of those that are too many.
func (s *settings) judgeRights(has map[string][]string) (warnings []string) {
	for _, op := range []operation{s.encrypt(), s.randomBytes()} {
		if !s.grants(has, op) {
			warnings = append(warnings, fmt.Sprintf("no data key can be made under this key: %s", s.missing(op)))
		}
	}
	switch list := has[s.policyPath(s.encrypt())]; {
	case slices.Contains(list, "root"):
		warnings = append(warnings, "the token is a root token: give the service one with a policy of its own")
	case slices.Contains(list, "create"):
		warnings = append(warnings, fmt.Sprintf("the token may create the key: whoever holds it could replace one that was deleted; leave the capability \"create\" out on %s", s.encrypt().path))
	}
	return warnings
}

// keyState is what reading a key tells; "Read key", API of the transit engine.
type keyState struct {
	Type                 string `json:"type"`
	Derived              bool   `json:"derived"`
	Exportable           bool   `json:"exportable"`
	PlaintextBackup      bool   `json:"allow_plaintext_backup"`
	DeletionAllowed      bool   `json:"deletion_allowed"`
	SoftDeleted          bool   `json:"soft_deleted"`
	LatestVersion        int    `json:"latest_version"`
	MinAvailableVersion  int    `json:"min_available_version"`
	MinDecryptionVersion int    `json:"min_decryption_version"`
	SupportsEncryption   *bool  `json:"supports_encryption"`
}

// inspect reads the key's state; nil if the right to is missing after all.
func (k *transitKey) inspect(ctx context.Context) (*keyState, error) {
	var got struct {
		Data *keyState `json:"data"`
	}
	permitted, err := k.ask(ctx, k.settings.readKey(), nil, &got)
	switch {
	case err != nil:
		return nil, err
	case !permitted:
		return nil, nil
	case got.Data == nil || got.Data.LatestVersion < 1:
		return nil, fmt.Errorf("the answer tells no state of the key: %w", core.ErrUnavailable)
	}
	return got.Data, nil
}

// usable returns why the key cannot wrap data keys, if it cannot.
func (k *keyState) usable(s *settings) error {
	var remedy string
	switch {
	case k.SoftDeleted:
		remedy = hintSoftly
	case k.Derived:
		remedy = hintDerived
	case k.SupportsEncryption != nil && !*k.SupportsEncryption, strings.HasPrefix(k.Type, "rsa-"):
		remedy = hintType
	default:
		return nil
	}
	return fmt.Errorf("%s: %w", s.fill(s.readKey(), remedy), core.ErrKeyDenied)
}

// warnings tells what an operator may not know of the key.
func (k *keyState) warnings(s *settings, lowest int) (list []string) {
	for _, w := range []struct {
		holds bool
		text  string
	}{
		{k.Exportable, "the key is exportable: it can leave Vault, and this cannot be taken back; create another for new stores"},
		{k.PlaintextBackup, "the key permits backups in plain text, and this cannot be taken back: it can leave Vault"},
		{k.DeletionAllowed, fmt.Sprintf("the key can be deleted, and every data key with it: forbid it with: vault write %s/config deletion_allowed=false", s.keyPath())},
	} {
		if w.holds {
			list = append(list, w.text)
		}
	}
	if least := max(k.MinDecryptionVersion, k.MinAvailableVersion); lowest > 0 && lowest < least {
		list = append(list, fmt.Sprintf("the key unwraps version %d and newer only, but data keys are wrapped under version %d: %s", least, lowest, s.fill(s.readKey(), hintTooOld)))
	}
	return list
}
