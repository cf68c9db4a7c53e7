package webhook

// Scope is whose data may be seen: a whole tenant's, or only one of its applications'.
type Scope struct {
	Tenant      TenantID
	Application ApplicationID // zero = every application of the tenant
}
