package vsd

import (
	"context"

	"nuage/controller/tenant"
)

// PolicyStore is what the API needs of the store for policies. Its conventions are those of
// Store. DeletePolicy takes the policy's entries with it.
type PolicyStore interface {
	CreatePolicyGroup(context.Context, tenant.PolicyGroup) (tenant.PolicyGroup, error)
	UpdatePolicyGroup(context.Context, tenant.PolicyGroup) (tenant.PolicyGroup, error)
	DeletePolicyGroup(ctx context.Context, id string) error
	CreateNetworkMacro(context.Context, tenant.NetworkMacro) (tenant.NetworkMacro, error)
	UpdateNetworkMacro(context.Context, tenant.NetworkMacro) (tenant.NetworkMacro, error)
	DeleteNetworkMacro(ctx context.Context, id string) error
	CreatePolicy(context.Context, tenant.Policy) (tenant.Policy, error)
	UpdatePolicy(context.Context, tenant.Policy) (tenant.Policy, error)
	DeletePolicy(ctx context.Context, id string) error
	CreateEntry(context.Context, tenant.Entry) (tenant.Entry, error)
	UpdateEntry(context.Context, tenant.Entry) (tenant.Entry, error)
	// NextEntryPriority is a priority after those of all entries of a policy.
	NextEntryPriority(ctx context.Context, policyID string) (uint32, error)
	DeleteEntry(ctx context.Context, id string) error
	CreateRateLimiter(context.Context, tenant.RateLimiter) (tenant.RateLimiter, error)
	UpdateRateLimiter(context.Context, tenant.RateLimiter) (tenant.RateLimiter, error)
	DeleteRateLimiter(ctx context.Context, id string) error
}
