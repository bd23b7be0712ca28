-- Statements that read all of a hub: for the thorough doctor, for a migration, and for who takes out what is damaged. No others may.

-- name: integrity_check
PRAGMA integrity_check(20)

-- name: all_instances
SELECT {row}, is_entity FROM instance WHERE instance.key > ? ORDER BY instance.key LIMIT ?

-- name: all_ids
SELECT key, id FROM instance NOT INDEXED WHERE key > ? ORDER BY key LIMIT ?

-- name: remove_tags
DELETE FROM tag WHERE instance = ?

-- name: all_pieces
SELECT number, events, sum + 2147483648, at FROM history WHERE instance = ? ORDER BY number

-- name: all_executions
SELECT execution_id, number, sum FROM execution WHERE instance = ? ORDER BY number

-- name: all_messages
SELECT number, instance, event, execution_id, is_control, at, sum FROM inbox WHERE number > ? ORDER BY number LIMIT ?

-- name: all_keys
SELECT instance, key, sum FROM dedupe

-- name: all_marks
SELECT instance, execution_id, task, sum FROM transacted

-- name: nobodys
-- Rows of instances that are not there.
SELECT 'history', instance FROM (SELECT DISTINCT instance FROM history) WHERE instance NOT IN (SELECT key FROM instance)
UNION ALL SELECT 'execution', instance FROM execution WHERE instance NOT IN (SELECT key FROM instance)
UNION ALL SELECT 'inbox', instance FROM inbox WHERE instance NOT IN (SELECT key FROM instance)
UNION ALL SELECT 'dedupe', instance FROM dedupe WHERE instance NOT IN (SELECT key FROM instance)
UNION ALL SELECT 'transacted', instance FROM transacted WHERE instance NOT IN (SELECT key FROM instance)

-- name: untagged
-- Tags of rows that the table of tags has not, and the other way round.
SELECT instance.key FROM instance, json_each(instance.tags) AS own
WHERE instance.tags IS NOT NULL AND NOT EXISTS (
    SELECT 1 FROM tag WHERE tag.name = own.key AND value = own.value AND tag.created_at = instance.created_at AND tag.instance = instance.key)
UNION ALL
SELECT tag.instance FROM tag WHERE NOT EXISTS (
    SELECT 1 FROM instance, json_each(instance.tags) AS own
    WHERE instance.key = tag.instance AND own.key = tag.name AND own.value = value AND instance.created_at = tag.created_at)

-- name: all_contents
SELECT digest, content FROM payload

-- name: all_uses
SELECT owner, digest FROM payload_use

-- name: schema
SELECT name, type, tbl_name, sql FROM sqlite_schema

-- Filling in what migration 10 added. Frozen: it is about what a file of format 9 has.

-- name: fill_instances
SELECT key, id, execution_id, name, version, status, start, start_number, wake_at, created_at, completed_at, custom_status, output, failure,
       problem, orphans, parent_id, tags, progress
FROM instance WHERE key > ? ORDER BY key LIMIT ?

-- name: fill_executions
SELECT execution_id, number FROM execution WHERE instance = ? ORDER BY number

-- name: fill_pieces
SELECT rowid, number, events FROM history WHERE instance = ? ORDER BY number

-- name: fill_one_piece
UPDATE history SET at = at * 31, sum = ? - 2147483648 WHERE rowid = ?

-- name: fill_past_execution
UPDATE execution SET sum = ? WHERE instance = ? AND execution_id = ?

-- name: fill_one_instance
UPDATE instance SET last = ?, start_sum = ?, sum = ?, problem_sum = ? WHERE key = ?

-- name: fill_messages
SELECT number, instance, event, execution_id, is_control, at FROM inbox

-- name: fill_one_message
UPDATE inbox SET sum = ? WHERE number = ?

-- name: fill_keys
SELECT instance, key FROM dedupe

-- name: fill_one_key
UPDATE dedupe SET sum = ? WHERE instance = ? AND key = ?

-- name: fill_marks
SELECT instance, execution_id, task FROM transacted

-- name: fill_one_mark
UPDATE transacted SET sum = ? WHERE instance = ? AND execution_id = ? AND task = ?

-- name: fill_suspicions
SELECT instance, piece, is_held, is_watched, party, strikes, releases, alibis FROM suspect

-- name: fill_one_suspicion
UPDATE suspect SET sum = ? WHERE instance = ?

-- name: fill_code
SELECT name, version, digest, is_default FROM served

-- name: fill_one_code
UPDATE served SET sum = ? WHERE name = ? AND version = ?

-- name: fill_counts
SELECT day, cause, instances FROM purged

-- name: fill_one_count
UPDATE purged SET sum = ? WHERE day = ? AND cause = ?

-- name: fill_hub
SELECT epoch, next_key, next_number, owner_pid, owner_host, owner_since FROM hub

-- name: fill_hub_sum
UPDATE hub SET sum = ?
