package webhook

// Lane is the way by which a delivery goes to a worker. Each has queues of its own and a share of the
// workers' slots, so that none has to wait behind all that another one holds.
type Lane uint8

// The lanes.
const (
	LaneLive Lane = iota // what was just accepted
	LaneFed              // what the feeder released: retries, what was parked, what was lost on the way
	LaneBulk             // what background tasks owe, behind everything else
)

// Lanes lists every lane.
var Lanes = []Lane{LaneLive, LaneFed, LaneBulk}

// String is the lane's name in metrics and logs.
func (l Lane) String() string { return [...]string{"live", "fed", "bulk"}[l] }
