package store

// A delivery that ends is counted by its task in the transaction that ends it. Only manual deliveries
// can belong to a task, so a batch without any is written without a look at tasks.

// taskOfSQL locks the tasks that a batch of results may count for, in the order of their keys and before
// any delivery: a step locks its task first, too, so that neither waits for the other.
const taskOfSQL = `
SELECT FROM task WHERE (tenant_id, id) IN (
	SELECT d.tenant_id, d.task_id FROM unnest($1::uuid[], $2::uuid[], $3::uuid[]) AS t(tenant_id, message_id, endpoint_id)
	CROSS JOIN LATERAL (
		SELECT d.tenant_id, d.task_id FROM delivery d
		WHERE d.tenant_id = t.tenant_id AND d.message_id = t.message_id AND d.endpoint_id = t.endpoint_id AND d.trigger = 1
		AND d.task_id IS NOT NULL OFFSET 0
	) d
) ORDER BY tenant_id, id FOR NO KEY UPDATE`

// countEndedSQL counts the rows of a relation "ended" (tenant_id, task_id, ok, at): how many succeeded,
// how many failed, and how many failed since the last success, in the order of at. So many failures in a
// row end the task.
const countEndedSQL = `
UPDATE task k SET done = k.done + c.done, failed = k.failed + c.failed,
	streak = c.trailing + CASE WHEN c.done = 0 THEN k.streak ELSE 0 END,
	status = CASE WHEN k.status = 'running' AND c.trailing + CASE WHEN c.done = 0 THEN k.streak ELSE 0 END >= k.stop_after
		THEN 'failed' ELSE k.status END,
	error = CASE WHEN k.status = 'running' AND c.trailing + CASE WHEN c.done = 0 THEN k.streak ELSE 0 END >= k.stop_after
		THEN 'stopped after ' || k.stop_after || ' failures in a row' ELSE k.error END,
	updated_at = now()
FROM (
	SELECT e.tenant_id, e.task_id, count(*) FILTER (WHERE e.ok) AS done, count(*) FILTER (WHERE NOT e.ok) AS failed,
		count(*) FILTER (WHERE NOT e.ok AND (e.last_ok IS NULL OR e.at > e.last_ok)) AS trailing
	FROM (
		SELECT tenant_id, task_id, ok, at, max(at) FILTER (WHERE ok) OVER (PARTITION BY tenant_id, task_id) AS last_ok
		FROM ended WHERE task_id IS NOT NULL
	) e GROUP BY e.tenant_id, e.task_id
) c
WHERE k.tenant_id = c.tenant_id AND k.id = c.task_id`
