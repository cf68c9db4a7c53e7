package worker

import (
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/posthaste/posthaste/internal/store"
	"github.com/posthaste/posthaste/internal/telemetry"
	"github.com/posthaste/posthaste/internal/webhook"
)

const (
	// After cautiousAfter failures in a row for cautiousFrom an endpoint gets one request at a time, and each but
	// cautiousPause after the last: its breaker opens only when it has failed for a while, and until then
	// whatever is sent burns an attempt. One that takes some of what it gets is not slowed down.
	cautiousAfter = 10
	cautiousFrom  = time.Second
	cautiousPause = 500 * time.Millisecond
	// backFirst is for how long an endpoint's deliveries are put back at first. It doubles while they are put
	// back again and again, up to the longest for those that are busy, for those that are slow or new while
	// there is no place for such, and for those that do not answer at all.
	backFirst  = 250 * time.Millisecond
	backBusy   = time.Second
	backSlow   = 5 * time.Second
	backSilent = 15 * time.Second
	// backCrowd is from which hold on a new endpoint is asked for one by one: there are very many of them. What
	// is asked for so takes up its pace slowly afterwards, so a moment's crowd does not do it.
	backCrowd = 2 * time.Second
	// maxTake bounds what the feeder is asked to release to an endpoint at once.
	maxTake = 1024
	// maxTargets is how many endpoints without a request under way are remembered at least; twice as many
	// at most.
	maxTargets = 8192
)

// destination is an endpoint as this process knows it.
type destination struct {
	tenant   webhook.TenantID
	url      string
	host     *host
	learnt   webhook.Concurrency
	most     int // requests at once, whatever was learnt
	underWay int
	slow     int // of them, in slow places
	late     int // of them, for longer than SlowAfter
	line     []*flight
	back     time.Duration // for how long its deliveries were put back last
	backTill time.Time

	failed               int       // requests in a row
	failedFrom, failedAt time.Time // when the first and the last of those ended
}

// host is a destination that endpoints share: scheme, name and port.
type host struct {
	name     string
	underWay int
	targets  int
}

// cautious reports whether an endpoint has failed so often that it will hardly take the next request. One
// that lets them hang is asked seldom enough.
func (e *destination) cautious(now time.Time) bool {
	return e.failed >= cautiousAfter && now.Sub(e.failedFrom) >= cautiousFrom && !e.learnt.Silent()
}

// hold is how an endpoint's deliveries are put back.
func (e *destination) hold(why telemetry.PutBackReason, now time.Time) store.Hold {
	first, longest := backFirst, backSlow
	switch {
	case e.learnt.Silent():
		first, longest = backSilent/8, backSilent
	case why == telemetry.PutBackHost:
		longest = backBusy
	case why == telemetry.PutBackEndpoint && e.learnt.Recent() > 0:
		longest = min(max(backBusy, e.learnt.Recent()/2), backSlow) // sooner than that hardly any ends
	}
	// What is put back beside others of the same moment does not make it longer.
	if e.back == 0 || !now.Before(e.backTill) {
		e.back = min(max(first, 2*e.back), longest)
		e.backTill = now.Add(e.back)
	}
	allow := e.learnt.Allow(e.most)
	take := allow
	switch recent := e.learnt.Recent(); {
	case e.cautious(now), recent == 0 && e.back >= backCrowd:
		take = 1
	case recent > 0:
		take = max(allow, min(int(time.Duration(allow)*lineFor/recent), maxTake)) // what it takes in the meantime
	}
	return store.Hold{For: min(e.back, longest), Take: take}
}

// target is what is known of a job's endpoint.
func (t *targets) target(j *store.Job) *destination {
	endpoint := &j.Endpoint
	e := t.young[endpoint.ID]
	if e == nil {
		if e = t.old[endpoint.ID]; e != nil {
			delete(t.old, endpoint.ID)
		} else {
			e = &destination{tenant: j.Delivery.Tenant, learnt: webhook.StartConcurrency(t.start)}
		}
		if len(t.young) >= maxTargets {
			t.forget()
		}
		t.young[endpoint.ID] = e
	}
	if e.host == nil || e.url != endpoint.URL {
		t.part(e)
		e.failed = 0 // at another URL it has not failed yet
		e.url, e.host = endpoint.URL, t.host(endpoint.URL)
		e.host.targets++
	}
	e.most = t.most
	if j.Concurrency > 0 {
		e.most = min(e.most, j.Concurrency)
	}
	return e
}

// forget drops the endpoints that were not heard of since it was called last.
func (t *targets) forget() {
	dropped := t.old
	t.old, t.young = t.young, make(map[webhook.EndpointID]*destination, maxTargets)
	for id, e := range dropped {
		if e.underWay > 0 || len(e.line) > 0 {
			t.young[id] = e
		} else {
			t.part(e)
		}
	}
}

// part takes an endpoint from its host.
func (t *targets) part(e *destination) {
	if e.host != nil {
		e.host.targets--
		t.forgetHost(e.host)
		e.host = nil
	}
}

// forgetHost drops a host that nothing is at.
func (t *targets) forgetHost(h *host) {
	if h.targets == 0 && h.underWay == 0 {
		delete(t.hosts, h.name)
	}
}

func (t *targets) host(raw string) *host {
	name := hostOf(raw)
	h := t.hosts[name]
	if h == nil {
		h = &host{name: name}
		t.hosts[name] = h
	}
	return h
}

// hostOf is scheme, name and port of a URL, in one spelling.
func hostOf(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return "" // it fails before anything is called
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return u.Scheme + "://" + net.JoinHostPort(strings.TrimSuffix(strings.ToLower(u.Hostname()), "."), port)
}
