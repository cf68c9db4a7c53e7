package webhook

// Scope is whose data may be seen: a whole tenant's, or only one of its applications'.
type Scope struct {
	Tenant      TenantID
	Application ApplicationID // zero = every application of the tenant
	// FeatureFlags are what an application was let into: of the tenant's event types it sees those with
	// no flag and those with one of these. They mean nothing without an Application.
	FeatureFlags []string
}
