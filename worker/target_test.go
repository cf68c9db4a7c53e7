package worker

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/posthaste/posthaste/internal/store"
	"github.com/posthaste/posthaste/internal/telemetry"
	"github.com/posthaste/posthaste/internal/webhook"
)

// desk is a worker's books without a worker: it takes places and begins, ends and sweeps at times of its own.
type desk struct {
	*targets
	now time.Time
}

func newDesk(concurrency int, change ...func(*Options)) *desk {
	o := Options{Concurrency: concurrency}
	for _, c := range change {
		c(&o)
	}
	w := New(o)
	return &desk{targets: w.targets, now: time.Unix(1e9, 0)}
}

type site struct {
	id   webhook.EndpointID
	url  string
	most int
}

func newSite(url string) site { return site{id: webhook.NewEndpointID(), url: url} }

// ask asks for one delivery; it has a place of the live lane as long as it goes or stands in line.
func (d *desk) ask(to site) (*flight, admission, putBack) {
	d.slots.enter(webhook.LaneLive, 1)
	f := &flight{job: store.Job{Endpoint: webhook.Endpoint{ID: to.id, URL: to.url}, Concurrency: to.most}}
	a, how := d.admit(f, d.now)
	if a == back || f.slow {
		d.slots.leave(webhook.LaneLive, 1)
	}
	return f, a, how
}

// fill begins as many as may be, and returns them and why no more may.
func (d *desk) fill(to site, most int) (begun []*flight, why telemetry.PutBackReason) {
	for range most {
		f, a, how := d.ask(to)
		switch a {
		case goes:
			begun = append(begun, f)
		case back:
			return begun, how.why
		case lined:
		}
	}
	return begun, ""
}

func (d *desk) done(f *flight, class webhook.ErrorClass, status int) []*flight {
	next := d.end(f, class, status, d.now)
	var p places
	if f.slow {
		p.slow[f.lane] = 1
	} else {
		p.fast[f.lane] = 1
	}
	d.slots.free(p)
	return next
}

func (d *desk) pass(by time.Duration) { d.now = d.now.Add(by) }

// answer lets an endpoint answer one request after a time.
func (d *desk) answer(t *testing.T, to site, after time.Duration) {
	t.Helper()
	f, a, how := d.ask(to)
	if a != goes {
		t.Fatalf("a request to %s may not begin: %v", to.url, how)
	}
	d.pass(after)
	d.done(f, webhook.ClassNone, 200)
}

func TestHostsInOneSpelling(t *testing.T) {
	for raw, want := range map[string]string{
		"https://example.com/a?b": "https://example.com:443", "https://EXAMPLE.com.:443": "https://example.com:443",
		"http://example.com": "http://example.com:80", "http://example.com:8080/": "http://example.com:8080",
		"https://[2001:DB8::1]/x": "https://[2001:db8::1]:443", "://": "",
	} {
		if got := hostOf(raw); got != want {
			t.Errorf("%s: %q, want %q", raw, got, want)
		}
	}
}

func TestAHealthyEndpointIsNeverHeldBack(t *testing.T) {
	d := newDesk(512)
	to := newSite("https://example.com/")
	underWay := []*flight{}
	for range 5000 {
		// As fast as places allow: two begin for every one that ends.
		for range 2 {
			if len(underWay) < 512 {
				f, a, how := d.ask(to)
				switch a {
				case goes:
					underWay = append(underWay, f)
				case back:
					t.Fatalf("with %d under way: put back as %v", len(underWay), how)
				case lined:
				}
			}
		}
		d.pass(time.Millisecond / 4)
		underWay = append(underWay[1:], d.done(underWay[0], webhook.ClassNone, 200)...)
	}
	if len(underWay) < 500 {
		t.Errorf("%d under way at the end", len(underWay))
	}
}

func TestAnEndpointsOwnCapHolds(t *testing.T) {
	d := newDesk(64)
	to := newSite("https://example.com/")
	to.most = 3
	d.answer(t, to, 100*time.Millisecond)
	begun, why := d.fill(to, 64)
	if len(begun) != 3 || why != telemetry.PutBackEndpoint {
		t.Fatalf("%d under way, then %s", len(begun), why)
	}
	// In a quarter of a second it takes so many more: those stand in line and follow one by one.
	if d.lined != 6 {
		t.Errorf("%d in line", d.lined)
	}
	total := len(begun)
	for len(begun) > 0 {
		d.pass(time.Millisecond)
		next := d.done(begun[0], webhook.ClassNone, 200)
		begun = append(begun[1:], next...)
		total += len(next)
		if len(begun) > 3 {
			t.Fatalf("%d under way", len(begun))
		}
	}
	if total != 9 || d.lined != 0 || len(d.lines) != 0 {
		t.Errorf("%d went, %d are still in line", total, d.lined)
	}
}

func TestAHostsCapHoldsAcrossEndpoints(t *testing.T) {
	d := newDesk(64, func(o *Options) { o.HostConcurrency = 10 })
	one, two, other := newSite("https://example.com/1"), newSite("https://EXAMPLE.com:443/2"), newSite("https://example.org/")
	for _, s := range []site{one, two, other} {
		d.answer(t, s, time.Millisecond)
	}
	first, _ := d.fill(one, 6)
	second, why := d.fill(two, 20)
	if len(first)+len(second) != 10 || why != telemetry.PutBackHost {
		t.Errorf("%d and %d under way, then %s", len(first), len(second), why)
	}
	if more, why := d.fill(other, 8); len(more) != 8 || why != "" {
		t.Errorf("%d to another host, then %s", len(more), why)
	}
	d.done(first[0], webhook.ClassNone, 200)
	if more, _ := d.fill(two, 20); len(more) != 1 {
		t.Errorf("%d for one that ended", len(more))
	}
}

// An endpoint whose URL changes while requests are under way counts at both hosts as it should.
func TestAnEndpointThatMoves(t *testing.T) {
	d := newDesk(64)
	to := newSite("https://example.com/")
	old, _ := d.fill(to, 2)
	to.url = "https://example.org/"
	moved, _ := d.fill(to, 1)
	if d.hosts["https://example.com:443"].underWay != 2 || d.hosts["https://example.org:443"].underWay != 1 {
		t.Errorf("hosts %v", d.hosts)
	}
	for _, f := range append(old, moved...) {
		d.done(f, webhook.ClassNone, 200)
	}
	if len(d.hosts) != 1 || d.hosts["https://example.org:443"] == nil {
		t.Errorf("hosts %v", d.hosts)
	}
}

func TestARequestThatLastsLeavesItsPlace(t *testing.T) {
	d := newDesk(64)
	to := newSite("https://example.com/")
	begun, _ := d.fill(to, 10)
	d.pass(DefaultSlowAfter - 1)
	d.sweep(d.now)
	if d.slots.slowInUse() != 0 {
		t.Fatal("they were moved too early")
	}
	d.pass(1)
	d.sweep(d.now)
	if d.slots.slowInUse() != 10 || d.slots.taken[webhook.LaneLive] != 0 || d.fresh != 0 {
		t.Fatalf("%d moved, %v left", d.slots.slowInUse(), d.slots.taken)
	}
	// Its limit has fallen below what is under way; as those end, what begins takes slow places at once.
	if f, a, how := d.ask(to); a != back || how.why != telemetry.PutBackEndpoint {
		t.Errorf("another one: %v %v %v", f.slow, a, how)
	}
	for _, f := range begun[:8] {
		d.done(f, webhook.ClassTimeoutHeaders, 0)
	}
	if _, a, how := d.ask(to); a != back {
		t.Errorf("a silent endpoint is sent a third: %v", how)
	}
	for _, f := range begun[8:] {
		d.done(f, webhook.ClassTimeoutHeaders, 0)
	}
	f, a, _ := d.ask(to)
	if a != goes || !f.slow || d.slots.slowInUse() != 1 {
		t.Errorf("a silent endpoint: %v, slow %v", a, f.slow)
	}
	if _, a, how := d.ask(to); a != back || how.hold.For != backFirst || how.hold.Take != 1 {
		t.Errorf("a second one at once: %v %v", a, how)
	}
	d.pass(time.Millisecond)
	d.done(f, webhook.ClassNone, 200)
	d.answer(t, to, time.Millisecond)
}

// However many endpoints hang, those that answer have places, and the slow places have room for whoever is
// found to last.
func TestEndpointsThatHangTakeNoPlaceFromThoseThatAnswer(t *testing.T) {
	d := newDesk(64)
	healthy := newSite("https://healthy.example/")
	d.answer(t, healthy, time.Millisecond)
	var holes []site
	for range 500 {
		holes = append(holes, newSite("https://"+webhook.NewEndpointID().String()+".example/"))
	}
	for range 200 { // a quarter of a second each
		for _, h := range holes {
			_, _ = d.fill(h, 5)
		}
		if begun, why := d.fill(healthy, 8); len(begun) != 8 {
			t.Fatalf("the healthy endpoint had %d of 8 requests, then %s", len(begun), why)
		} else {
			d.pass(time.Millisecond)
			for _, f := range begun {
				d.done(f, webhook.ClassNone, 200)
			}
		}
		d.pass(250 * time.Millisecond)
		for f := d.first.next; f != &d.first && d.now.Sub(f.begun) >= 15*time.Second; {
			next := f.next
			d.done(f, webhook.ClassTimeoutHeaders, 0)
			f = next
		}
		stuck, _ := d.sweep(d.now)
		for range stuck {
			d.slots.leave(webhook.LaneLive, 1)
		}
		if n := d.slots.slowInUse(); n > d.slots.slow {
			t.Fatalf("%d of %d slow places", n, d.slots.slow)
		}
	}
}

func TestOneStragglerDoesNotMakeAnEndpointSlow(t *testing.T) {
	d := newDesk(64)
	to := newSite("https://example.com/")
	for range 50 {
		d.answer(t, to, time.Millisecond)
	}
	straggler, _, _ := d.ask(to)
	d.pass(DefaultSlowAfter)
	others, _ := d.fill(to, 8)
	d.sweep(d.now)
	more, why := d.fill(to, 6)
	if !straggler.slow || len(others) != 8 || len(more) != 6 || more[0].slow {
		t.Errorf("%d and %d go beside it, then %s", len(others), len(more), why)
	}
}

func TestHoldsGrow(t *testing.T) {
	d := newDesk(4)
	e := d.target(&store.Job{})
	var got []time.Duration
	for range 7 {
		h := e.hold(telemetry.PutBackSlow, d.now)
		if again := e.hold(telemetry.PutBackSlow, d.now); again != h {
			t.Errorf("twice at once: %v and %v", h, again)
		}
		got = append(got, h.For)
		d.pass(h.For)
	}
	const ms = time.Millisecond
	for i, want := range []time.Duration{250 * ms, 500 * ms, 1000 * ms, 2000 * ms, 4000 * ms, 5000 * ms, 5000 * ms} {
		if got[i] != want {
			t.Errorf("%d: %v, want %v", i, got[i], want)
		}
	}
	e.learnt = e.learnt.After(webhook.Answer{Begun: d.now, Ended: d.now.Add(ms), UnderWay: 1, Most: 4})
	if h := e.hold(telemetry.PutBackEndpoint, d.now); h.For != backBusy {
		t.Errorf("busy: %v", h.For)
	}
	// Of an endpoint that takes long, and of one that does not answer, hardly any request ends sooner.
	for class, want := range map[webhook.ErrorClass]time.Duration{webhook.ClassNone: 4 * time.Second, webhook.ClassTimeoutHeaders: backSilent} {
		slow := d.target(&store.Job{Endpoint: webhook.Endpoint{ID: webhook.NewEndpointID()}})
		slow.learnt = slow.learnt.After(webhook.Answer{Class: class, Begun: d.now.Add(-8 * time.Second), Ended: d.now, UnderWay: 1, Most: 4})
		for range 8 {
			h := slow.hold(telemetry.PutBackEndpoint, d.now)
			d.pass(h.For)
			if h.For > want {
				t.Errorf("%q: %v, want at most %v", class, h.For, want)
			}
		}
		if h := slow.hold(telemetry.PutBackEndpoint, d.now); h.For != want {
			t.Errorf("%q: %v, want %v", class, h.For, want)
		}
	}
}

// Of an endpoint whose first request hangs, another would tell no more.
func TestOneHangingRequestSaysEnough(t *testing.T) {
	d := newDesk(64)
	to := newSite("https://hangs.example/")
	_, a, _ := d.ask(to)
	d.pass(DefaultSlowAfter)
	d.sweep(d.now)
	if a != goes || d.slots.slowInUse() != 1 {
		t.Fatalf("%v, %d slow", a, d.slots.slowInUse())
	}
	for range 7 {
		_, a, how := d.ask(to)
		if a != back || how.hold.Take != 1 {
			t.Errorf("a second one: %v %v", a, how)
		}
		d.pass(how.hold.For)
	}
	if _, _, how := d.ask(to); how.hold.For != backSlow {
		t.Errorf("it is asked for again after %v", how.hold.For)
	}
}

// An endpoint that fails again and again is sent little until its breaker opens, and as much as before once it
// has taken something.
func TestFailingEndpointsBurnFewAttempts(t *testing.T) {
	d := newDesk(64)
	to := newSite("https://fails.example/")
	sent, first := 0, 0
	for begun := d.now; d.now.Sub(begun) < 5*time.Second; d.pass(10 * time.Millisecond) {
		if d.now.Sub(begun) <= cautiousFrom {
			first = sent
		}
		flights, _ := d.fill(to, 20)
		for len(flights) > 0 {
			f := flights[0]
			flights = append(flights[1:], d.done(f, webhook.ClassServerError, 500)...)
			sent++
		}
		stuck, how := d.sweep(d.now)
		for i := range stuck {
			d.slots.leave(webhook.LaneLive, 1)
			if how[i].hold.Take != 1 {
				t.Fatalf("%v", how[i])
			}
		}
	}
	// Until then one that fails now and then looks like it.
	if most := 20 + int(5*time.Second/cautiousPause); first < 1000 || sent-first > most {
		t.Errorf("%d were sent in five seconds, %d of them at first, want at most %d more", sent, first, most)
	}
	d.pass(cautiousPause)
	flights, _ := d.fill(to, 8)
	if len(flights) != 1 {
		t.Fatalf("%d go at once", len(flights))
	}
	d.pass(time.Millisecond)
	d.done(flights[0], webhook.ClassNone, 200)
	if flights, _ := d.fill(to, 8); len(flights) != 8 {
		t.Errorf("%d go after it has taken one", len(flights))
	}
}

// However many endpoints of one tenant are new at once, those of another have places.
func TestNewEndpointsOfOneTenantLeavePlacesToOthers(t *testing.T) {
	d := newDesk(512)
	tenants := [2]webhook.TenantID{webhook.NewTenantID(), webhook.NewTenantID()}
	ask := func(tenant webhook.TenantID, lane webhook.Lane) (*flight, admission, putBack) {
		f := &flight{place: place{lane: lane}}
		f.job.Delivery.Tenant, f.job.Endpoint.ID = tenant, webhook.NewEndpointID()
		a, how := d.admit(f, d.now)
		return f, a, how
	}
	var begun [2]int
	var flights []*flight
	for i, tenant := range tenants {
		for range 1000 {
			f, a, how := ask(tenant, webhook.LaneLive)
			if a == goes {
				begun[i]++
				flights = append(flights, f)
			} else if how.why != telemetry.PutBackNew || how.hold.Take != d.start {
				t.Fatalf("%v", how)
			}
		}
	}
	if want := [2]int{d.freshMost * newEach / (newEach + 1), d.freshMost * newEach / (newEach + 1) / (newEach + 1)}; begun != want {
		t.Errorf("%v begin of %d, want %v", begun, d.freshMost, want)
	}
	// Who has to wait for long is asked for one by one.
	crowded := &flight{place: place{lane: webhook.LaneLive}}
	crowded.job.Delivery.Tenant, crowded.job.Endpoint.ID = tenants[0], webhook.NewEndpointID()
	for range 5 {
		a, how := d.admit(crowded, d.now)
		if want := how.hold.For < backCrowd; a != back || (how.hold.Take == d.start) != want || (how.hold.Take == 1) == want {
			t.Errorf("%v %v", a, how)
		}
		d.pass(how.hold.For)
	}
	for _, f := range flights {
		d.done(f, webhook.ClassRefused, 0)
	}
	if d.fresh != 0 || len(d.freshOf) != 0 {
		t.Errorf("in the end %d, %v", d.fresh, d.freshOf)
	}
}

// A probe of an endpoint that hangs goes before others like it, and not when there is no place for such.
func TestProbesOfHangingEndpointsAreBounded(t *testing.T) {
	d := newDesk(64)
	began, refused := 0, 0
	for range 2 * d.slots.slow {
		to := newSite("https://" + webhook.NewEndpointID().String() + ".example/")
		f := &flight{job: store.Job{Gate: webhook.GateProbing, Endpoint: webhook.Endpoint{ID: to.id, URL: to.url}}, place: place{lane: webhook.LaneFed}}
		e := d.target(&f.job)
		e.learnt = e.learnt.After(webhook.Answer{Class: webhook.ClassTimeoutHeaders, Begun: d.now, Ended: d.now.Add(time.Second), UnderWay: 1, Most: 64})
		switch a, how := d.admit(f, d.now); {
		case a == goes && f.slow:
			began++
		case a == back && how.why == telemetry.PutBackSlow:
			refused++
		default:
			t.Fatalf("%v %v", a, how)
		}
	}
	if want := d.slots.slow - d.slowKeep/2; began != want || refused != 2*d.slots.slow-want {
		t.Errorf("%d begin, want %d", began, want)
	}
}

func TestEndpointsAreForgotten(t *testing.T) {
	d := newDesk(64)
	busy := newSite("https://busy.example/")
	f, _, _ := d.ask(busy)
	for range 3 * maxTargets {
		d.answerTo(newSite("https://" + webhook.NewEndpointID().String() + ".example/"))
	}
	if n := len(d.young) + len(d.old); n > 2*maxTargets+2 || len(d.hosts) != n {
		t.Errorf("%d endpoints and %d hosts are remembered", n, len(d.hosts))
	}
	if e := d.target(&store.Job{Endpoint: webhook.Endpoint{ID: busy.id, URL: busy.url}}); e != f.target || e.underWay != 1 {
		t.Error("one with a request under way was forgotten")
	}
}

func (d *desk) answerTo(to site) {
	if f, a, _ := d.ask(to); a == goes {
		d.pass(time.Millisecond)
		d.done(f, webhook.ClassNone, 200)
	}
}

// TestTargetsKeepTheirBooks does everything at random and counts along.
func TestTargetsKeepTheirBooks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := newDesk(rapid.IntRange(1, 32).Draw(t, "concurrency"), func(o *Options) { o.HostConcurrency = 20 })
		var sites []site
		for i := range 6 {
			s := newSite("https://" + string(rune('a'+i%3)) + ".example/")
			s.most = []int{0, 0, 2}[i%3]
			sites = append(sites, s)
		}
		var underWay, line []*flight
		began := func(f *flight) {
			for i, l := range line {
				if l == f {
					line = append(line[:i:i], line[i+1:]...)
				}
			}
			underWay = append(underWay, f)
		}
		t.Repeat(map[string]func(*rapid.T){
			"ask": func(t *rapid.T) {
				s := rapid.SampledFrom(sites).Draw(t, "site")
				w := d.slots.enter(webhook.LaneLive, 1)
				if w.got == 0 {
					d.slots.giveUp(webhook.LaneLive, w)
					t.Skip()
				}
				d.slots.leave(webhook.LaneLive, 1)
				switch f, a, how := d.ask(s); a {
				case goes:
					began(f)
				case lined:
					line = append(line, f)
				case back:
					longest := backSlow
					if f.target.learnt.Silent() {
						longest = backSilent
					}
					if how.hold.For < backFirst || how.hold.For > longest || how.hold.Take < 1 || how.hold.Take > maxTake {
						t.Fatalf("put back with %v", how)
					}
				}
			},
			"end": func(t *rapid.T) {
				if len(underWay) == 0 {
					t.Skip()
				}
				i := rapid.IntRange(0, len(underWay)-1).Draw(t, "which")
				f := underWay[i]
				underWay = append(underWay[:i:i], underWay[i+1:]...)
				class := rapid.SampledFrom([]webhook.ErrorClass{"", "", webhook.ClassTimeoutHeaders, webhook.ClassRateLimited}).Draw(t, "class")
				for _, next := range d.done(f, class, map[webhook.ErrorClass]int{"": 200, webhook.ClassRateLimited: 429}[class]) {
					began(next)
				}
			},
			"sweep": func(t *rapid.T) {
				d.pass(time.Duration(rapid.IntRange(1, 2000).Draw(t, "ms")) * time.Millisecond)
				stuck, _ := d.sweep(d.now)
				for _, f := range stuck {
					d.slots.leave(webhook.LaneLive, 1)
					for i, l := range line {
						if l == f {
							line = append(line[:i:i], line[i+1:]...)
						}
					}
				}
			},
			"": func(t *rapid.T) {
				slow, fresh := 0, 0
				endpoints, hosts := map[*destination]int{}, map[*host]int{}
				for _, f := range underWay {
					endpoints[f.target]++
					hosts[f.host]++
					if f.slow {
						slow++
					}
					if f.fresh {
						fresh++
					}
				}
				if slow != d.slots.slowInUse() || fresh != d.fresh || len(line) != d.lined ||
					len(underWay)-slow+len(line) != d.slots.taken[webhook.LaneLive] {
					t.Fatalf("%d under way (%d slow, %d fresh), %d in line; the books say %d fresh, %d in line and places %v, %v",
						len(underWay), slow, fresh, len(line), d.fresh, d.lined, d.slots.taken, d.slots.slowed)
				}
				for e, n := range endpoints {
					if n != e.underWay || n > e.most {
						t.Fatalf("%d requests to an endpoint that may have %d, and the books say %d", n, e.most, e.underWay)
					}
				}
				for h, n := range hosts {
					if n != h.underWay || n > 20 {
						t.Fatalf("%d requests to a host, and the books say %d", n, h.underWay)
					}
				}
			},
		})
	})
}

func BenchmarkPlaces(b *testing.B) {
	d := newDesk(512)
	to := newSite("https://example.com/hook")
	jobs := [64]flight{}
	b.ReportAllocs()
	for i := 0; i < b.N; i += len(jobs) {
		d.slots.enter(webhook.LaneLive, len(jobs))
		now := time.Now()
		for i := range jobs {
			jobs[i] = flight{job: store.Job{Endpoint: webhook.Endpoint{ID: to.id, URL: to.url}}}
			if a, _ := d.admit(&jobs[i], now); a != goes {
				b.Fatal("put back")
			}
		}
		for i := range jobs {
			_ = d.end(&jobs[i], webhook.ClassNone, 200, time.Now())
		}
		d.slots.free(places{fast: [3]int{len(jobs)}})
	}
}
