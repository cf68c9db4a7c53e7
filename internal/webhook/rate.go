package webhook

// Rate is how many deliveries or messages may go per second.
type Rate struct {
	PerSecond int // 0 = no limit
	Burst     int // how many may go at once after a pause; 0 = a tenth of a second's worth, at least one
}

// Rates are the limits that hold for an endpoint's deliveries, one within the other.
type Rates struct {
	Application                           ApplicationID
	OverTenant, OverApplication, Endpoint Rate
}

// Any reports whether there is a limit at all.
func (r Rates) Any() bool {
	return r.OverTenant.PerSecond > 0 || r.OverApplication.PerSecond > 0 || r.Endpoint.PerSecond > 0
}
