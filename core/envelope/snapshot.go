package envelope

import "errors"

// ErrUnknownKey means that a record names a data key that the snapshot does not
// hold, and is not legacy either. Whoever made the snapshot may know a newer
// one. It is not core.ErrInvalidCiphertext: that is said once nothing newer is
// to be had.
var ErrUnknownKey = errors.New("opening record: the record names a data key that is not loaded")

// Snapshot is the data keys of a ring at one moment. It never changes, so a ring
// publishes a new one by exchanging a pointer and readers need no lock.
type Snapshot struct {
	primary *Key
	keys    map[KeyID]*Key
	legacy  LegacyKeys
}

// NewSnapshot returns a snapshot. primary seals, and may be nil if nothing may be
// sealed; keys and primary open; legacy opens what has no magic, and is empty
// where legacy records are refused.
func NewSnapshot(primary *Key, keys []*Key, legacy LegacyKeys) *Snapshot {
	s := &Snapshot{primary: primary, keys: make(map[KeyID]*Key, len(keys)+1), legacy: legacy}
	for _, k := range keys {
		s.keys[k.id] = k
	}
	if primary != nil {
		s.keys[primary.id] = primary
	}
	return s
}

// Primary returns the key that seals, or nil.
func (s *Snapshot) Primary() *Key { return s.primary }

// Has reports whether the key named id is in the snapshot.
func (s *Snapshot) Has(id KeyID) bool { return s.keys[id] != nil }

// Open appends to dst the plaintext of record and returns the longer slice, and
// whether the record is stale: legacy, or sealed under a key that is not
// primary. It returns ErrUnknownKey if the record names a key that is not here,
// and core.ErrInvalidCiphertext if it does not open.
func (s *Snapshot) Open(dst, record, aad []byte) (out []byte, stale bool, err error) {
	id, ok := ParseHeader(record)
	if !ok {
		out, err = s.legacy.Open(dst, record)
		return out, true, err
	}
	// Comparing with the primary first spares most records the map.
	if p := s.primary; p != nil && p.id == id {
		out, err = p.Open(dst, record, aad)
		return out, false, err
	}
	if k := s.keys[id]; k != nil {
		out, err = k.Open(dst, record, aad)
		return out, true, err
	}
	// One legacy nonce in 2^32 looks like the magic.
	if out, err = s.legacy.Open(dst, record); err == nil {
		return out, true, nil
	}
	return nil, false, ErrUnknownKey
}
