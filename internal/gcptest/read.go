package gcptest

import (
	"context"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"cloud.google.com/go/kms/apiv1/kmspb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// defaultPage is how many versions a page holds if the caller does not say.
const defaultPage = 100

// key returns a key by its resource name. s.mu is held.
func (s *Server) key(name string) (*Key, error) {
	if !keyPattern.MatchString(name) {
		return nil, status.Errorf(codes.InvalidArgument, "Invalid resource field value in the request: %q is not the name of a CryptoKey.", name)
	}
	k := s.keys[name]
	if k == nil {
		return nil, status.Errorf(codes.NotFound, "CryptoKey %s not found.", name)
	}
	return k, nil
}

var keyPattern = regexp.MustCompile(`^projects/[^/]+/locations/[a-zA-Z0-9_-]{1,63}/keyRings/[a-zA-Z0-9_-]{1,63}/cryptoKeys/[a-zA-Z0-9_-]{1,63}$`)

// GetCryptoKey implements kmspb.KeyManagementServiceServer.
func (s *Server) GetCryptoKey(_ context.Context, req *kmspb.GetCryptoKeyRequest) (*kmspb.CryptoKey, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.demand(PermissionGetKey, req.GetName()); err != nil {
		return nil, err
	}
	k, err := s.key(req.GetName())
	if err != nil {
		return nil, err
	}
	return k.pb(), nil
}

// GetCryptoKeyVersion implements kmspb.KeyManagementServiceServer.
func (s *Server) GetCryptoKeyVersion(_ context.Context, req *kmspb.GetCryptoKeyVersionRequest) (*kmspb.CryptoKeyVersion, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.demand(PermissionGetVersion, req.GetName()); err != nil {
		return nil, err
	}
	keyName, number, _ := strings.Cut(req.GetName(), "/cryptoKeyVersions/")
	k, err := s.key(keyName)
	if err != nil {
		return nil, err
	}
	n, err := strconv.Atoi(number)
	if err != nil || k.version(n) == nil {
		return nil, status.Errorf(codes.NotFound, "CryptoKeyVersion %s not found.", req.GetName())
	}
	return k.versionPB(k.version(n)), nil
}

// ListCryptoKeyVersions implements kmspb.KeyManagementServiceServer. Of the filter
// it knows "state=X", "state!=X", and several of them joined by AND.
func (s *Server) ListCryptoKeyVersions(_ context.Context, req *kmspb.ListCryptoKeyVersionsRequest) (*kmspb.ListCryptoKeyVersionsResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.demand(PermissionListVersions, req.GetParent()); err != nil {
		return nil, err
	}
	k, err := s.key(req.GetParent())
	if err != nil {
		return nil, err
	}
	keep, err := parseFilter(req.GetFilter())
	if err != nil {
		return nil, err
	}
	var all []*kmspb.CryptoKeyVersion
	for _, v := range k.versions {
		if keep(v.state) {
			all = append(all, k.versionPB(v))
		}
	}
	return page(all, req)
}

// page cuts what was asked for out of all.
func page(all []*kmspb.CryptoKeyVersion, req *kmspb.ListCryptoKeyVersionsRequest) (*kmspb.ListCryptoKeyVersionsResponse, error) {
	start, size := 0, int(req.GetPageSize())
	if token := req.GetPageToken(); token != "" {
		var err error
		if start, err = strconv.Atoi(token); err != nil || start < 0 || start > len(all) {
			return nil, status.Error(codes.InvalidArgument, "The page token is invalid.")
		}
	}
	if size <= 0 {
		size = defaultPage
	}
	end := min(start+size, len(all))
	resp := &kmspb.ListCryptoKeyVersionsResponse{CryptoKeyVersions: all[start:end], TotalSize: int32(len(all))}
	if end < len(all) {
		resp.NextPageToken = strconv.Itoa(end)
	}
	return resp, nil
}

func parseFilter(filter string) (keep func(State) bool, err error) {
	if filter == "" {
		return func(State) bool { return true }, nil
	}
	var with, without []string
	for term := range strings.SplitSeq(filter, " AND ") {
		if state, ok := strings.CutPrefix(term, "state!="); ok {
			without = append(without, state)
		} else if state, ok := strings.CutPrefix(term, "state="); ok {
			with = append(with, state)
		} else {
			return nil, status.Error(codes.InvalidArgument, "The filter is invalid.")
		}
	}
	return func(s State) bool {
		return !slices.Contains(without, s.String()) && (len(with) == 0 || slices.Contains(with, s.String()))
	}, nil
}
