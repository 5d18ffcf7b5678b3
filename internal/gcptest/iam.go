package gcptest

import (
	"context"

	"cloud.google.com/go/iam/apiv1/iampb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// The permissions that the methods of this server ask for; Cloud KMS, "Permissions
// and roles".
const (
	PermissionEncrypt      = "cloudkms.cryptoKeyVersions.useToEncrypt"
	PermissionDecrypt      = "cloudkms.cryptoKeyVersions.useToDecrypt"
	PermissionGetKey       = "cloudkms.cryptoKeys.get"
	PermissionGetVersion   = "cloudkms.cryptoKeyVersions.get"
	PermissionListVersions = "cloudkms.cryptoKeyVersions.list"
	PermissionRandom       = "cloudkms.locations.generateRandomBytes"
)

// permitted says whether callers have a permission. s.mu is held.
func (s *Server) permitted(permission string) bool {
	return s.revoked[permission] == 0 && s.revoked["*"] == 0
}

// demand returns the error of a caller that lacks a permission on a resource. Like
// the service, it does not tell whether the resource exists. s.mu is held.
func (s *Server) demand(permission, resource string) error {
	if s.permitted(permission) {
		return nil
	}
	return withDetails(
		status.Newf(codes.PermissionDenied, "Permission '%s' denied on resource '%s' (or it may not exist).", permission, resource),
		info("IAM_PERMISSION_DENIED", map[string]string{"permission": permission, "resource": resource}),
	).Err()
}

// policies is the IAM part of the service.
type policies struct {
	iampb.UnimplementedIAMPolicyServer
	server *Server
}

// TestIamPermissions implements iampb.IAMPolicyServer. Of a resource that does not
// exist nothing is permitted; it is not an error.
func (p *policies) TestIamPermissions(_ context.Context, req *iampb.TestIamPermissionsRequest) (*iampb.TestIamPermissionsResponse, error) {
	if len(req.GetPermissions()) == 0 {
		return nil, status.Error(codes.InvalidArgument, "permissions is required.")
	}
	s := p.server
	s.mu.Lock()
	defer s.mu.Unlock()
	resp := &iampb.TestIamPermissionsResponse{}
	if s.keys[req.GetResource()] == nil {
		return resp, nil
	}
	for _, permission := range req.GetPermissions() {
		if permission == "*" {
			return nil, status.Error(codes.InvalidArgument, "Permissions with wildcards are not allowed.")
		}
		if s.permitted(permission) {
			resp.Permissions = append(resp.Permissions, permission)
		}
	}
	return resp, nil
}
