-- name: hub
SELECT epoch, next_key, next_number, owner_pid, owner_host, owner_since, sum FROM hub

-- name: change_hub
UPDATE hub SET epoch = ?, next_key = ?, next_number = ?, owner_pid = ?, owner_host = ?, owner_since = ?, sum = ?

-- What is read of many instances at once is MATERIALIZED: SQLite finds all of it while the first row is asked for, and the interpreter's lock is free
-- meanwhile. Found row by row the lock would be given away with each, and a busy event loop keeps it for long.

-- name: known
WITH found AS MATERIALIZED (
    SELECT instance.id, instance.key, instance.execution_id, instance.status, instance.start_number,
           instance.problem IS NOT NULL, instance.start_sum, piece.number, piece.sum + 2147483648
    FROM json_each(?) AS wanted JOIN instance ON instance.id = wanted.value
         LEFT JOIN history AS piece ON piece.instance = instance.key
              AND piece.number = (SELECT max(number) FROM history WHERE history.instance = instance.key))
SELECT * FROM found

-- What nearly every instance's row is made of when it is added, and when it ends, has statements of its own: what is always NULL costs as much as the rest.

-- name: add_instances (?, ?, ?, ?, ?, ?, ?, ?, nullif(?, ''), ?, ?, ?, 0)
INSERT INTO instance (key, id, execution_id, name, start, created_at, is_entity, status, wake_at, last, start_sum, sum, start_number)
VALUES

-- name: add_rich_instances (?, ?, ?, ?, ?, ?, ?, ?, nullif(?, ''), ?, ?, ?, 0, nullif(?, 0), nullif(?, 0), nullif(?, 0), nullif(?, ''), nullif(?, ''), nullif(?, ''), nullif(?, ''), nullif(?, ''), nullif(?, ''))
INSERT INTO instance (key, id, execution_id, name, start, created_at, is_entity, status, wake_at, last, start_sum, sum, start_number,
                      version, parent_id, tags, custom_status, output, failure, completed_at, orphans, progress)
VALUES

-- Sums of pieces are stored less 2^31, in four bytes; outside of the statements they are as crc32 has them. What is worked out of a value is worked out
-- of a column: SQLite compares each expression of parameters with all that came before it when it prepares the statement, 500 with one another here.

-- name: add_pieces (?, ?, ?, ?, ?)
INSERT INTO history (instance, number, at, events, sum)
SELECT column1, column2, column3 * 31, column4, column5 - 2147483648
FROM (VALUES
-- then:
)

-- name: add_messages (?, ?, nullif(?, ''), nullif(?, 0), ?, ?, ?)
INSERT INTO inbox (number, instance, event, execution_id, is_control, at, sum)
VALUES

-- name: show_ends (?, ?, ?, ?, ?, ?)
WITH shown (key, status, output, completed_at, last, sum) AS (VALUES
-- then:
)
UPDATE instance
SET status = shown.status, wake_at = NULL, custom_status = NULL, output = shown.output, failure = NULL, completed_at = shown.completed_at,
    orphans = NULL, progress = NULL, last = shown.last, sum = shown.sum
FROM shown WHERE instance.key = shown.key

-- name: show_states (?, ?, nullif(?, ''), nullif(?, ''), nullif(?, ''), nullif(?, ''), nullif(?, ''), nullif(?, ''), nullif(?, ''), ?, ?)
WITH shown (key, status, wake_at, custom_status, output, failure, completed_at, orphans, progress, last, sum) AS (VALUES
-- then:
)
UPDATE instance
SET status = shown.status, wake_at = shown.wake_at, custom_status = shown.custom_status, output = shown.output,
    failure = shown.failure, completed_at = shown.completed_at, orphans = shown.orphans,
    progress = shown.progress, last = shown.last, sum = shown.sum
FROM shown WHERE instance.key = shown.key

-- name: consume
DELETE FROM inbox WHERE number IN (SELECT value FROM json_each(?))

-- name: is_repeated
SELECT 1 FROM dedupe WHERE instance = ? AND key = ?

-- name: remember
INSERT INTO dedupe (instance, key, sum) VALUES (?, ?, ?)

-- name: forget_keys
DELETE FROM dedupe WHERE instance = ?

-- name: has_messages
SELECT 1 FROM inbox WHERE instance = ? LIMIT 1

-- name: forget_pieces
DELETE FROM history WHERE instance = ? AND number < ?

-- name: forget_executions
DELETE FROM execution WHERE instance = ? AND number < ?

-- name: park
UPDATE instance SET problem = ?, problem_sum = ? WHERE key = ?

-- name: note_past_execution
INSERT INTO execution (instance, execution_id, number, sum) VALUES (?, ?, ?, ?)

-- name: begin_continued
UPDATE instance
SET execution_id = ?, name = ?, version = ?, status = 'PENDING', start = ?, start_number = ?, wake_at = ?, tags = ?,
    last = ?, start_sum = ?, sum = ?,
    completed_at = NULL, output = NULL, failure = NULL, problem = NULL, problem_sum = NULL, progress = NULL
WHERE key = ?

-- name: begin_replacing
UPDATE instance
SET execution_id = ?, name = ?, version = ?, status = 'PENDING', start = ?, start_number = ?, wake_at = ?, tags = ?,
    last = ?, start_sum = ?, sum = ?,
    completed_at = NULL, output = NULL, failure = NULL, problem = NULL, problem_sum = NULL, progress = NULL,
    created_at = ?, parent_id = ?, custom_status = NULL
WHERE key = ?

-- part: row
-- In the order that sums.py has.
instance.id, execution_id, name, version, status, start, start_number, wake_at, created_at,
       (SELECT at FROM history WHERE history.instance = instance.key ORDER BY number DESC LIMIT 1),
       completed_at, custom_status, output, failure, problem, orphans, parent_id, tags, progress,
       last, start_sum, sum, problem_sum, instance.key

-- name: records
WITH found AS MATERIALIZED (SELECT {row} FROM json_each(?) AS wanted JOIN instance ON instance.id = wanted.value)
SELECT * FROM found

-- name: record
SELECT {row}
FROM instance WHERE id = ?

-- name: pieces
-- The last piece's number and sum are one value: found together, by one search.
WITH found AS MATERIALIZED (
    SELECT instance.key,
           (SELECT CAST(group_concat(events, '') AS BLOB)
            FROM (SELECT events FROM history WHERE history.instance = instance.key AND number > start_number ORDER BY number)),
           (SELECT number * 4294967296 + (sum + 2147483648)
            FROM history WHERE history.instance = instance.key AND number > start_number ORDER BY number DESC LIMIT 1)
    FROM json_each(?) AS wanted JOIN instance ON instance.key = wanted.value)
SELECT * FROM found

-- name: pieces_between
SELECT number, events, sum + 2147483648 FROM history WHERE instance = ? AND number >= ? AND number < ? ORDER BY number

-- name: past_execution
SELECT number, (SELECT min(number) FROM execution AS later WHERE later.instance = execution.instance AND later.number > execution.number), sum
FROM execution WHERE instance = ? AND execution_id = ?

-- name: past_executions
SELECT execution.execution_id, execution.number, execution.sum, start.events, start.sum + 2147483648
FROM execution LEFT JOIN history AS start ON start.instance = execution.instance AND start.number = execution.number
WHERE execution.instance = ? ORDER BY execution.number

-- name: inboxes
SELECT inbox.number, inbox.instance, inbox.event, inbox.execution_id, inbox.is_control, inbox.at, inbox.sum
FROM json_each(?) AS wanted JOIN inbox ON inbox.instance = wanted.value
ORDER BY inbox.number

-- name: arrived
SELECT number, inbox.instance, event, inbox.execution_id, is_control, inbox.at, inbox.sum, instance.id,
       (SELECT own.key FROM instance AS own WHERE own.id = instance.id), problem IS NULL AND status <> 'SUSPENDED'
FROM inbox JOIN instance ON instance.key = inbox.instance
WHERE number > ? ORDER BY number LIMIT ?

-- name: wakes
-- Two searches that are merged: `(wake_at, key) > (?, ?)` would walk over all of an equal time again for each page of it.
-- The index may have another time than the row: the row is asked, too.
SELECT wake_at, key, id, (SELECT wake_at FROM instance AS own WHERE own.key = instance.key) FROM instance WHERE wake_at = :at AND key > :key
UNION ALL
SELECT wake_at, key, id, (SELECT wake_at FROM instance AS own WHERE own.key = instance.key) FROM instance WHERE wake_at > :at
ORDER BY 1, 2 LIMIT :limit

-- name: database_changes
PRAGMA data_version

-- name: format
SELECT user_version, application_id, (SELECT count(*) FROM sqlite_schema) FROM pragma_user_version, pragma_application_id

-- ---- finding. A walk gives places, (position, key), in order, by an index that has them all; it is made for both ways (statements.py).

-- walk: created
SELECT created_at, key FROM instance WHERE is_entity = :is_entity

-- walk: named
SELECT created_at, key FROM instance WHERE is_entity = :is_entity AND name = :name

-- walk: in_status
SELECT created_at, key FROM instance WHERE is_entity = :is_entity AND status = :status

-- walk: parked
SELECT created_at, key FROM instance INDEXED BY instance_parked WHERE is_entity = :is_entity AND problem IS NOT NULL

-- walk: of_parent
SELECT created_at, key FROM instance WHERE parent_id = :parent_id

-- walk: tagged
SELECT created_at, instance FROM tag WHERE name = :tag AND value = :value

-- walk: completed
SELECT completed_at, key FROM instance WHERE status = :status AND completed_at IS NOT NULL

-- walk: by_id
SELECT id, key FROM instance WHERE TRUE

-- name: fitting
SELECT {row}
FROM json_each(:keys) AS walked CROSS JOIN instance ON instance.key = walked.value
WHERE {fits}
LIMIT :limit

-- name: count_fitting
SELECT status, name, count(*)
FROM json_each(:keys) AS walked CROSS JOIN instance ON instance.key = walked.value
WHERE {fits}
GROUP BY status, name

-- part: fits
(:statuses IS NULL OR status IN (SELECT value FROM json_each(:statuses)))
  AND (:name IS NULL OR name = :name)
  AND instance.id >= :id_from AND instance.id < :id_to
  AND (:created_from IS NULL OR created_at >= :created_from)
  AND (:created_to IS NULL OR created_at < :created_to)
  AND (:completed_from IS NULL OR completed_at >= :completed_from)
  AND (:completed_to IS NULL OR completed_at < :completed_to)
  AND (:is_parked IS NULL OR (problem IS NOT NULL) = :is_parked)
  AND (:is_entity IS NULL OR is_entity = :is_entity)
  AND (:parent_id IS NULL OR parent_id = :parent_id)
  AND NOT EXISTS (
      SELECT 1 FROM json_each(:tags) AS wanted
      WHERE NOT EXISTS (
          SELECT 1 FROM json_each(iif(json_valid(tags), tags, '{}')) AS had
          WHERE had.key = json_extract(wanted.value, '$[0]') AND had.value = json_extract(wanted.value, '$[1]')))

-- name: places
SELECT instance.id, created_at, completed_at, instance.key
FROM json_each(?) AS walked CROSS JOIN instance ON instance.key = walked.value

-- name: count_statuses
SELECT status, count(*) FROM instance WHERE is_entity = :is_entity AND created_at >= :from AND created_at < :to GROUP BY status

-- name: count_names
SELECT name, count(*) FROM instance WHERE is_entity = :is_entity AND created_at >= :from AND created_at < :to GROUP BY name

-- name: waiting_since
SELECT inbox.number, inbox.instance, inbox.event, inbox.execution_id, inbox.is_control, inbox.at, inbox.sum, instance.id,
       (SELECT own.key FROM instance AS own WHERE own.id = instance.id), problem IS NULL AND status <> 'SUSPENDED'
FROM inbox JOIN instance ON instance.key = inbox.instance
WHERE inbox.number > ? ORDER BY inbox.number LIMIT ?

-- name: waiting_for
SELECT inbox.number, inbox.instance, inbox.event, inbox.execution_id, inbox.is_control, inbox.at, inbox.sum, instance.id,
       (SELECT own.key FROM instance AS own WHERE own.id = instance.id), problem IS NULL AND status <> 'SUSPENDED'
FROM instance JOIN inbox ON inbox.instance = instance.key
WHERE instance.id = ? ORDER BY inbox.number LIMIT ?

-- name: size
SELECT page_count * page_size, freelist_count * page_size FROM pragma_page_count, pragma_page_size, pragma_freelist_count

-- What purging and retention need. First all of an instance, wherever it is kept:

-- name: remove_messages
DELETE FROM inbox WHERE instance IN (SELECT value FROM json_each(?))

-- name: remove_keys
DELETE FROM dedupe WHERE instance IN (SELECT value FROM json_each(?))

-- name: remove_history
DELETE FROM history WHERE instance IN (SELECT value FROM json_each(?))

-- name: remove_executions
DELETE FROM execution WHERE instance IN (SELECT value FROM json_each(?))

-- name: remove_instances
DELETE FROM instance WHERE key IN (SELECT value FROM json_each(?))

-- name: owes
SELECT 1 FROM instance WHERE key = ? AND orphans IS NOT NULL

-- A damaged instance, of which nothing is believed. What the triggers on its row would read of it, it has no more when they do: a row is replaced
-- without them.

-- name: row_of_key
SELECT {row}, is_entity FROM instance WHERE key = ?

-- name: messages_of
SELECT number, instance, event, execution_id, is_control, at, sum FROM inbox WHERE instance = ? ORDER BY number

-- name: count_children
SELECT count(*) FROM instance WHERE parent_id = ?

-- name: blank
INSERT OR REPLACE INTO instance (key, id, execution_id, name, status, start, start_number, created_at)
VALUES (?, ?, '', '', 'TERMINATED', x'', 0, 0)

-- name: remove_suspicion
DELETE FROM suspect WHERE instance = ?

-- name: remove_uses_of_messages
DELETE FROM payload_use WHERE owner IN (SELECT -number FROM inbox WHERE instance = ?)

-- name: reindex_instances
REINDEX instance

-- name: count_purged
INSERT INTO purged (day, cause, instances, sum) VALUES (?, ?, ?, ?)
ON CONFLICT (day, cause) DO UPDATE SET instances = excluded.instances, sum = excluded.sum

-- name: purged_on
SELECT day, cause, instances, sum FROM purged WHERE day = ? AND cause = ?

-- name: newest_execution
SELECT number FROM execution WHERE instance = ? ORDER BY number DESC LIMIT 1 OFFSET ?

-- name: oldest_execution
SELECT number FROM execution WHERE instance = ? ORDER BY number LIMIT 1 OFFSET ?

-- name: children
SELECT id, execution_id FROM instance
WHERE parent_id = ? AND status NOT IN ('PENDING', 'RUNNING', 'SUSPENDED') AND orphans IS NULL ORDER BY created_at, key LIMIT ?

-- name: ended
SELECT id, execution_id FROM instance
WHERE status = ? AND completed_at < ? AND completed_at IS NOT NULL AND orphans IS NULL
  AND NOT EXISTS (SELECT 1 FROM instance AS child WHERE child.parent_id = instance.id)
ORDER BY completed_at, key LIMIT ?

-- name: pasts
SELECT instance, executions, (SELECT id FROM instance WHERE key = past.instance)
FROM (SELECT instance, count(*) AS executions FROM execution WHERE instance > ? GROUP BY instance ORDER BY instance LIMIT ?) AS past

-- name: ended_by_status
SELECT status, count(*), min(completed_at) FROM instance
WHERE status IN ('COMPLETED', 'FAILED', 'TERMINATED', 'CANCELED') AND completed_at IS NOT NULL GROUP BY status

-- name: all_purged
SELECT day, cause, instances, sum FROM purged

-- Suspicions: who was in flight when a worker died, and what is held against it.

-- name: suspicions
SELECT instance, piece, is_held, is_watched, party, strikes, releases, alibis, sum FROM suspect

-- name: in_flight
-- All of the inbox is read once, as by a worker that starts (`arrived`). SQLite 3.53 would read all instances to have them in the order of their keys.
SELECT key, max(start_number, coalesce((SELECT max(number) FROM history WHERE history.instance = key), 0))
FROM instance INDEXED BY instance_wake WHERE wake_at <= ? AND problem IS NULL
UNION
SELECT key, max(start_number, coalesce((SELECT max(number) FROM history WHERE history.instance = key), 0))
FROM instance
WHERE key IN (SELECT inbox.instance FROM inbox WHERE number > 0 AND (is_control OR EXISTS (
    SELECT 1 FROM instance AS receiver WHERE receiver.key = inbox.instance AND problem IS NULL AND status <> 'SUSPENDED')))

-- name: forget_suspicions
DELETE FROM suspect

-- name: add_suspicions (?, ?, ?, ?, ?, ?, ?, ?, ?)
INSERT INTO suspect (instance, piece, is_held, is_watched, party, strikes, releases, alibis, sum)
VALUES

-- name: held
SELECT instance.id, suspect.instance, piece, is_held, is_watched, party, strikes, releases, alibis, suspect.sum
FROM suspect JOIN instance ON instance.key = suspect.instance WHERE is_held ORDER BY suspect.instance

-- name: change_suspicion
UPDATE suspect SET piece = ?, is_held = ?, is_watched = ?, party = ?, strikes = ?, releases = ?, alibis = ?, sum = ?
WHERE instance = ?

-- name: key_of
SELECT key FROM instance WHERE id = ?

-- name: forget_suspicion
DELETE FROM suspect WHERE instance = (SELECT key FROM instance WHERE id = ?)

-- Versions: what workers serve, and what is open. The pairs are found by jumps, a search of the index for each.

-- name: served
SELECT name, version, digest, is_default, sum FROM served ORDER BY name, version

-- name: forget_served
DELETE FROM served WHERE name IN (SELECT value FROM json_each(?))

-- name: keep_served
INSERT INTO served (name, version, digest, is_default, sum) VALUES (?, ?, ?, ?, ?)

-- name: open_versions
WITH RECURSIVE
    named (name) AS (
        SELECT min(name) FROM instance WHERE completed_at IS NULL
        UNION ALL
        SELECT (SELECT min(name) FROM instance WHERE completed_at IS NULL AND instance.name > named.name)
        FROM named WHERE named.name IS NOT NULL),
    pair (name, version) AS (
        SELECT name, (SELECT min(coalesce(version, '')) FROM instance WHERE completed_at IS NULL AND instance.name = named.name)
        FROM named WHERE name IS NOT NULL
        UNION ALL
        SELECT name, (SELECT min(coalesce(version, '')) FROM instance
                      WHERE completed_at IS NULL AND instance.name = pair.name AND coalesce(instance.version, '') > pair.version)
        FROM pair WHERE pair.version IS NOT NULL)
SELECT name, version FROM pair WHERE version IS NOT NULL ORDER BY name, version

-- name: some_open
SELECT {row} FROM instance WHERE completed_at IS NULL AND name = ? AND coalesce(version, '') = ? LIMIT 5

-- name: count_open
SELECT count(*) FROM instance WHERE completed_at IS NULL AND name = ? AND coalesce(version, '') = ?

-- What writing in somebody else's transaction looks at first:

-- name: main_file
SELECT file FROM pragma_database_list WHERE name = 'main'

-- name: hidden_tables
SELECT name FROM sqlite_temp_schema WHERE name IN ('hub', 'instance', 'history', 'execution', 'inbox', 'dedupe')

-- Large payloads.

-- name: keep_content
INSERT INTO payload (digest, content) VALUES (?, ?) ON CONFLICT (digest) DO NOTHING

-- name: keep_use
INSERT INTO payload_use (owner, digest) VALUES (?, ?) ON CONFLICT DO NOTHING

-- name: content
SELECT content FROM payload WHERE digest = ?

-- name: shown
SELECT custom_status, output, orphans FROM instance WHERE key = ?

-- name: is_plain
SELECT NOT EXISTS (SELECT 1 FROM payload) AND NOT EXISTS (SELECT 1 FROM sealing_key)

-- name: keep_key_id
INSERT INTO sealing_key (key_id) VALUES (?) ON CONFLICT DO NOTHING

-- name: uses
SELECT digest FROM payload_use WHERE owner = ?

-- name: forget_use
DELETE FROM payload_use WHERE owner = ? AND digest = ?

-- name: all_kept
SELECT events FROM history WHERE instance = :instance
UNION ALL SELECT start FROM instance WHERE key = :instance
UNION ALL SELECT custom_status FROM instance WHERE key = :instance AND custom_status IS NOT NULL
UNION ALL SELECT output FROM instance WHERE key = :instance AND output IS NOT NULL
UNION ALL SELECT orphans FROM instance WHERE key = :instance AND orphans IS NOT NULL

-- Transactional activities.

-- name: receiver
SELECT key, execution_id, status, orphans, problem IS NOT NULL,
       EXISTS (SELECT 1 FROM transacted WHERE instance = key AND transacted.execution_id = :execution_id AND task = :task)
FROM instance WHERE id = :id

-- name: has_come_since
SELECT 1 FROM inbox WHERE instance = ? AND number > ? AND execution_id = ? LIMIT 1

-- name: mark_transacted
INSERT INTO transacted (instance, execution_id, task, sum) VALUES (?, ?, ?, ?)

-- name: sweep_transacted
DELETE FROM transacted WHERE instance = ? AND execution_id NOT IN (SELECT value FROM json_each(?))

-- name: remove_transacted
DELETE FROM transacted WHERE instance IN (SELECT value FROM json_each(?))

-- name: schema_names
SELECT name FROM sqlite_schema

-- name: foreign_keys
SELECT own.name, foreign_key."table" FROM sqlite_schema AS own, pragma_foreign_key_list(own.name) AS foreign_key WHERE own.type = 'table'
