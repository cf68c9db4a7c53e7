package failpoint

// Point names one place in the product.
type Point string

// The points.
const (
	APIBodyRead              Point = "api.body_read"               // a request's body has been read
	APIBeforeCommit          Point = "api.before_commit"           // messages are inserted, not yet committed
	APIAfterCommit           Point = "api.after_commit"            // messages are durable, nothing is queued yet
	APIAfterEnqueue          Point = "api.after_enqueue"           // their tasks are in the queue
	APIBeforeAnswer          Point = "api.before_answer"           // all is done, the caller does not know yet
	WorkerBeforeSend         Point = "worker.before_send"          // a delivery may go and is rendered
	WorkerAfterSend          Point = "worker.after_send"           // the receiver has answered
	WorkerBeforeResultCommit Point = "worker.before_result_commit" // results are written, not yet committed
	WorkerAfterResultCommit  Point = "worker.after_result_commit"  // results are durable
	FeederMidBatch           Point = "feeder.mid_batch"            // deliveries are released, not yet queued
	TaskAfterStep            Point = "task.after_step"             // a task's step is durable, its deliveries not yet queued
	MigrateMid               Point = "migrate.mid"                 // between two migrations
	StoreAccept              Point = "store.accept"                // the store is asked to accept a batch
	StoreRecord              Point = "store.record"                // the store is asked to record results
)

// Points lists every point.
var Points = []Point{
	APIBodyRead, APIBeforeCommit, APIAfterCommit, APIAfterEnqueue, APIBeforeAnswer,
	WorkerBeforeSend, WorkerAfterSend, WorkerBeforeResultCommit, WorkerAfterResultCommit,
	FeederMidBatch, TaskAfterStep, MigrateMid, StoreAccept, StoreRecord,
}

// The variables that Configure reads.
const (
	EnvPoints = "POSTHASTE_FAILPOINTS"
	EnvLog    = "POSTHASTE_FAILPOINT_LOG"
	EnvSeed   = "POSTHASTE_FAILPOINT_SEED"
)
