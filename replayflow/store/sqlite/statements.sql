-- name: hub
SELECT epoch, next_key, next_number, data_version FROM hub, pragma_data_version

-- name: owner
SELECT owner_pid, owner_host, owner_since FROM hub

-- name: take_hub
UPDATE hub SET epoch = epoch + 1, owner_pid = ?, owner_host = ?, owner_since = ? RETURNING epoch

-- name: leave_hub
UPDATE hub SET owner_pid = NULL, owner_host = NULL, owner_since = NULL WHERE epoch = ?

-- name: count_on
UPDATE hub SET next_key = ?, next_number = ?

-- name: known
SELECT instance.id, instance.key, instance.execution_id, instance.status, instance.start_number,
       instance.problem IS NOT NULL,
       (SELECT max(number) FROM history WHERE history.instance = instance.key)
FROM json_each(?) AS wanted JOIN instance ON instance.id = wanted.value

-- name: add_instances (?, ?, ?, ?, nullif(?, 0), ?, ?, ?, nullif(?, ''), ?, nullif(?, ''), nullif(?, ''), nullif(?, ''), nullif(?, ''), nullif(?, ''), nullif(?, 0), nullif(?, 0), nullif(?, ''))
INSERT INTO instance (key, id, execution_id, name, version, status, start, start_number, wake_at, created_at,
                      completed_at, custom_status, output, failure, orphans, parent_id, tags,
                      progress)
VALUES

-- name: add_pieces (?, ?, ?, ?)
INSERT INTO history (instance, number, at, events)
VALUES

-- name: add_messages (?, ?, nullif(?, ''), nullif(?, 0), ?)
INSERT INTO inbox (number, instance, event, execution_id, is_control)
VALUES

-- name: show_states (?, ?, nullif(?, ''), nullif(?, ''), nullif(?, ''), nullif(?, ''), nullif(?, ''), nullif(?, ''), nullif(?, ''))
WITH shown (key, status, wake_at, custom_status, output, failure, completed_at, orphans, progress) AS (VALUES
-- then:
)
UPDATE instance
SET status = shown.status, wake_at = shown.wake_at, custom_status = shown.custom_status, output = shown.output,
    failure = shown.failure, completed_at = shown.completed_at, orphans = shown.orphans,
    progress = shown.progress
FROM shown WHERE instance.key = shown.key

-- name: consume
DELETE FROM inbox WHERE number IN (SELECT value FROM json_each(?))

-- name: is_repeated
SELECT 1 FROM dedupe WHERE instance = ? AND key = ?

-- name: remember
INSERT INTO dedupe (instance, key) VALUES (?, ?)

-- name: forget_keys
DELETE FROM dedupe WHERE instance = ?

-- name: has_messages
SELECT 1 FROM inbox WHERE instance = ? LIMIT 1

-- name: forget_pieces
DELETE FROM history WHERE instance = ? AND number < ?

-- name: forget_executions
DELETE FROM execution WHERE instance = ? AND number < ?

-- name: remove_history
DELETE FROM history WHERE instance = ?

-- name: remove_executions
DELETE FROM execution WHERE instance = ?

-- name: remove_instance
DELETE FROM instance WHERE key = ?

-- name: park
UPDATE instance SET problem = ? WHERE key = ?

-- name: move_start_into_history
INSERT INTO history (instance, number, at, events) SELECT key, start_number, created_at, start FROM instance WHERE key = ?

-- name: note_past_execution
INSERT INTO execution (instance, execution_id, number) SELECT key, execution_id, start_number FROM instance WHERE key = ?

-- name: begin_continued
UPDATE instance
SET execution_id = ?, name = ?, version = ?, status = 'PENDING', start = ?, start_number = ?, wake_at = ?, tags = ?,
    completed_at = NULL, output = NULL, failure = NULL, problem = NULL, progress = NULL
WHERE key = ?

-- name: begin_replacing
UPDATE instance
SET execution_id = ?, name = ?, version = ?, status = 'PENDING', start = ?, start_number = ?, wake_at = ?, tags = ?,
    completed_at = NULL, output = NULL, failure = NULL, problem = NULL, progress = NULL,
    created_at = ?, parent_id = ?, custom_status = NULL
WHERE key = ?

-- name: records
SELECT instance.id, execution_id, name, version, status, start, start_number, wake_at, created_at,
       max(created_at, coalesce((SELECT at FROM history WHERE history.instance = instance.key ORDER BY number DESC LIMIT 1), created_at)),
       completed_at, custom_status, output, failure, problem, orphans, parent_id, tags, progress, instance.key
FROM json_each(?) AS wanted JOIN instance ON instance.id = wanted.value

-- name: record
SELECT id, execution_id, name, version, status, start, start_number, wake_at, created_at,
       max(created_at, coalesce((SELECT at FROM history WHERE instance = key ORDER BY number DESC LIMIT 1), created_at)),
       completed_at, custom_status, output, failure, problem, orphans, parent_id, tags, progress, key
FROM instance WHERE id = ?

-- name: page
SELECT id, execution_id, name, version, status, start, start_number, wake_at, created_at,
       max(created_at, coalesce((SELECT at FROM history WHERE instance = key ORDER BY number DESC LIMIT 1), created_at)),
       completed_at, custom_status, output, failure, problem, orphans, parent_id, tags, progress, key
FROM instance
WHERE key > :after
  AND (:statuses IS NULL OR status IN (SELECT value FROM json_each(:statuses)))
  AND (:name IS NULL OR name = :name)
  AND (:id_prefix IS NULL OR substr(id, 1, length(:id_prefix)) = :id_prefix)
  AND (:created_from IS NULL OR created_at >= :created_from)
  AND (:created_to IS NULL OR created_at < :created_to)
  AND (:is_parked IS NULL OR (problem IS NOT NULL) = :is_parked)
  AND (:is_entity IS NULL OR (substr(id, 1, 1) = '@') = :is_entity)
  AND NOT EXISTS (
      SELECT 1 FROM json_each(:tags) AS wanted
      WHERE NOT EXISTS (
          SELECT 1 FROM json_each(coalesce(tags, '{}')) AS had
          WHERE had.key = json_extract(wanted.value, '$[0]') AND had.value = json_extract(wanted.value, '$[1]')))
ORDER BY key LIMIT :limit

-- name: parked_page
SELECT id, execution_id, name, version, status, start, start_number, wake_at, created_at,
       max(created_at, coalesce((SELECT at FROM history WHERE instance = key ORDER BY number DESC LIMIT 1), created_at)),
       completed_at, custom_status, output, failure, problem, orphans, parent_id, tags, progress, key
FROM instance WHERE problem IS NOT NULL AND key > ?1 AND (?3 IS NULL OR (substr(id, 1, 1) = '@') = ?3) ORDER BY key LIMIT ?2

-- name: pieces
SELECT json_extract(wanted.value, '$[0]'),
       (SELECT count(*) FROM history
        WHERE instance = json_extract(wanted.value, '$[0]') AND number > json_extract(wanted.value, '$[1]')) AS pieces,
       (SELECT CAST(group_concat(events, '') AS BLOB)
        FROM (SELECT events FROM history
              WHERE instance = json_extract(wanted.value, '$[0]') AND number > json_extract(wanted.value, '$[1]')
              ORDER BY number))
FROM json_each(?) AS wanted
WHERE pieces

-- name: pieces_between
SELECT events FROM history WHERE instance = ? AND number >= ? AND number < ? ORDER BY number

-- name: past_execution
SELECT number, (SELECT min(number) FROM execution AS later WHERE later.instance = execution.instance AND later.number > execution.number)
FROM execution WHERE instance = ? AND execution_id = ?

-- name: executions
SELECT execution_id FROM (
    SELECT execution.execution_id, execution.number
    FROM instance JOIN execution ON execution.instance = instance.key WHERE instance.id = ?1
    UNION ALL
    SELECT execution_id, start_number FROM instance WHERE id = ?1)
ORDER BY number

-- name: inboxes
SELECT inbox.number, inbox.instance, inbox.event, inbox.execution_id, inbox.is_control
FROM json_each(?) AS wanted JOIN inbox ON inbox.instance = wanted.value
ORDER BY inbox.number

-- name: arrived
SELECT number, instance.id, event, inbox.execution_id, is_control, problem IS NULL AND status <> 'SUSPENDED'
FROM inbox JOIN instance ON instance.key = inbox.instance
WHERE number > ? ORDER BY number LIMIT ?

-- name: wakes
-- Two searches that are merged: `(wake_at, key) > (?, ?)` would walk over all of an equal time again for each page of it.
SELECT wake_at, key, id FROM instance WHERE wake_at = ?1 AND key > ?2
UNION ALL
SELECT wake_at, key, id FROM instance WHERE wake_at > ?1
ORDER BY 1, 2 LIMIT ?3

-- name: code
SELECT name, digest FROM code

-- name: keep_code
INSERT INTO code (name, digest) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET digest = excluded.digest

-- name: database_changes
PRAGMA data_version

-- name: format
SELECT user_version, application_id, (SELECT count(*) FROM sqlite_schema) FROM pragma_user_version, pragma_application_id
