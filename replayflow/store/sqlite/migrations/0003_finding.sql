-- What instances are looked for by. Every index costs every start or end: those for what few instances have are partial.
-- `is_entity` comes first, so that a million entities do not stand in the way of ten orchestrations.
ALTER TABLE instance ADD COLUMN is_entity INTEGER NOT NULL DEFAULT 0;
UPDATE instance SET is_entity = 1 WHERE id >= '@' AND id < 'A';
CREATE INDEX instance_created ON instance (is_entity, created_at);
CREATE INDEX instance_name ON instance (is_entity, name, created_at);
CREATE INDEX instance_status ON instance (is_entity, status, created_at);
CREATE INDEX instance_parent ON instance (parent_id, created_at) WHERE parent_id IS NOT NULL;
DROP INDEX instance_parked;
CREATE INDEX instance_parked ON instance (is_entity, created_at) WHERE problem IS NOT NULL;

-- The tags of the instances that have any, kept by triggers: whoever writes an instance writes its tags.
CREATE TABLE tag (
    name       TEXT NOT NULL,
    value      TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    instance   INTEGER NOT NULL,
    PRIMARY KEY (name, value, created_at, instance)
) WITHOUT ROWID;
INSERT INTO tag (name, value, created_at, instance)
SELECT each.key, each.value, instance.created_at, instance.key
FROM instance JOIN json_each(instance.tags) AS each WHERE instance.tags IS NOT NULL;

CREATE TRIGGER tags_of_new AFTER INSERT ON instance WHEN new.tags IS NOT NULL
BEGIN
    INSERT INTO tag (name, value, created_at, instance)
    SELECT each.key, each.value, new.created_at, new.key FROM json_each(new.tags) AS each;
END;
CREATE TRIGGER tags_of_changed AFTER UPDATE OF tags, created_at ON instance WHEN old.tags IS NOT NULL OR new.tags IS NOT NULL
BEGIN
    DELETE FROM tag
    WHERE created_at = old.created_at AND instance = old.key
      AND (name, value) IN (SELECT each.key, each.value FROM json_each(coalesce(old.tags, '{}')) AS each);
    INSERT INTO tag (name, value, created_at, instance)
    SELECT each.key, each.value, new.created_at, new.key FROM json_each(coalesce(new.tags, '{}')) AS each;
END;
CREATE TRIGGER tags_of_removed AFTER DELETE ON instance WHEN old.tags IS NOT NULL
BEGIN
    DELETE FROM tag
    WHERE created_at = old.created_at AND instance = old.key
      AND (name, value) IN (SELECT each.key, each.value FROM json_each(old.tags) AS each);
END;

-- Since when a message waits; NULL where an earlier version took it.
ALTER TABLE inbox ADD COLUMN at INTEGER;
