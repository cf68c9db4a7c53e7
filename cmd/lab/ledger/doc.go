// Package ledger holds what both ends of the product saw and decides whether it kept its promise. The
// producer's ledger knows every message, every request made for it and every answer; the sink's knows
// every request that arrived. The check is pure: it compares the two with each other and with what the
// product itself says it did, and knows nothing of how the product works.
package ledger

import "time"

// Outcome is what the producer knows of a message.
type Outcome int

// The outcomes.
const (
	Unknown  Outcome = iota // no definite answer: it may or may not be delivered
	Accepted                // answered 2xx with an id: it must be delivered
	Refused                 // answered 4xx: it must not be delivered
)

// Message is one message in the producer's ledger.
type Message struct {
	Seq       int
	Tenant    int // number of the tenant
	Outcome   Outcome
	IDs       []string // every id an answer named, in order; more than one different id is a failure
	Hash      [32]byte // SHA-256 of the payload
	Endpoints []int    // numbers of the endpoints that matched when it was sent
	Posted    time.Time
	Answered  time.Time // when it was first accepted
	Tries     int       // requests made for it
}

// Try is one request to the API.
type Try struct {
	Seq     int
	Status  int // 0 = no answer
	Timeout bool
	Began   time.Time
	Took    time.Duration
}

// Endpoint is one receiver.
type Endpoint struct {
	ID     string
	Tenant int
	Flaky  bool // fails some requests on purpose, or all
	// Unseen says that attempts may fail before they reach the sink's ledger.
	Unseen bool
	// Ordered: it takes its messages in the order in which they were accepted.
	Ordered bool
}

// Record is one request in the sink's ledger.
type Record struct {
	Endpoint    int // number of the endpoint, from the path
	ID          string
	Tenant, Seq int // from the body; Seq is -1 when the body is not one of ours
	Hash        [32]byte
	Signed      bool // the signature verifies with the endpoint's secret
	Status      int  // the answer given
	Arrived     time.Time
	Answered    time.Time
	Conn        uint64 // names the connection
}

// Pair names a delivery.
type Pair struct {
	Message  string
	Endpoint int
}

// Row is one attempt as the product recorded it.
type Row struct {
	Pair     Pair
	Sent     bool // a request was made
	Final    bool // the last of its delivery
	Success  bool
	Class    string        // why it failed, in the product's words
	Took     time.Duration // by the product's account
	Kept     int           // bytes kept of the answer
	Started  time.Time     // when the product says the attempt began
	Recorded time.Time     // when the row was committed, by the database's own account; zero = not known
}

// Fault is one moment, or stretch, at which something was broken on purpose.
type Fault struct {
	What     string
	At       time.Time
	Until    time.Time // equal to At for a moment; else the harm was done at one moment in between
	OneOf    bool      // a single worker process was hit; the others' connections live on
	Resends  bool      // what was being sent then may be sent once more
	Unlogged bool      // what was sent then may lack its attempt row
	Unsent   bool      // an attempt that was under way then may have failed without reaching anybody
}

// Ask is a send that somebody asked for once more: by resending, or by a replay that selects it.
type Ask struct {
	Pair Pair
	At   time.Time // just before it was asked for
	// Perhaps says that it need not happen, such as when the replay ends before it.
	Perhaps bool
}

// Run is everything known about one run.
type Run struct {
	Messages  []Message
	Tries     []Try
	Endpoints []Endpoint
	Records   []Record
	Closed    map[uint64]time.Time // when the sink saw a connection's end
	Rows      []Row
	Asked     []Ask
	Owed      []Pair // deliveries still open when the run was over
	Stored    int    // messages in the product's store
	Faults    []Fault
	Crashes   []string // processes that ended in a way nobody asked for
	Rules     Rules
}

// Rules are the bounds that differ between faults.
type Rules struct {
	// Lag is how long before a fault an answer may have come whose result the fault could still
	// destroy. It matters only for sends without an attempt row; the others' rows tell the time.
	Lag time.Duration
	// BrokenConnections allows requests to the API to end without an answer.
	BrokenConnections bool
	// Unavailable allows answers 429 and 503.
	Unavailable bool
	// Latest is how long after its acceptance a delivery may first arrive; 0 leaves it open.
	Latest time.Duration
	// Retried is how long after a refusal a delivery may arrive again; 0 leaves it open.
	Retried time.Duration
}
