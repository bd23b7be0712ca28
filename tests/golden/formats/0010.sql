BEGIN TRANSACTION;
CREATE TABLE dedupe (
    instance INTEGER NOT NULL,
    key      TEXT NOT NULL, sum INTEGER,
    PRIMARY KEY (instance, key)
) WITHOUT ROWID;
INSERT INTO "dedupe" VALUES(2,'once',2135985402);
CREATE TABLE execution (
    instance     INTEGER NOT NULL,
    execution_id TEXT NOT NULL,
    number       INTEGER NOT NULL, sum INTEGER,
    PRIMARY KEY (instance, execution_id)
) WITHOUT ROWID;
CREATE TABLE history (
    instance INTEGER NOT NULL,
    number   INTEGER NOT NULL,
    at       INTEGER NOT NULL,
    events   BLOB NOT NULL
, sum INTEGER);
INSERT INTO "history" VALUES(1,1,54783993600000000,X'92920ECF0006474846204000990601A4776F726BC407A66265666F7265A0C0C0C0C0',-818960609);
INSERT INTO "history" VALUES(1,2,54783993600000000,X'93920ECF0006474846204000930701C407A64245464F5245990602A4776F726BC405A47468656EA0C0C0C0C0',-1716609692);
INSERT INTO "history" VALUES(1,3,54783993600000000,X'93920ECF0006474846204000930702C405A45448454E960403A9434F4D504C45544544C40BAA4245464F52455448454EC0A0',586039634);
INSERT INTO "history" VALUES(2,1,54783993600000000,X'92920ECF0006474846204000990601A4776F726BC408A7726F756E642032A0C0C0C0C0',1450667633);
INSERT INTO "history" VALUES(2,2,54783993600000000,X'92920ECF0006474846204000930701C408A7524F554E442032',-1515851724);
CREATE TABLE hub (
    id          INTEGER PRIMARY KEY CHECK (id = 1),
    epoch       INTEGER NOT NULL,
    owner_pid   INTEGER,
    owner_host  TEXT,
    owner_since INTEGER,
    next_key    INTEGER NOT NULL,
    next_number INTEGER NOT NULL
, sum INTEGER, data_version INTEGER);
INSERT INTO "hub" VALUES(1,0,NULL,NULL,NULL,4,2,2412540301,NULL);
CREATE TABLE inbox (
    number       INTEGER PRIMARY KEY,
    instance     INTEGER NOT NULL,
    event        BLOB,
    execution_id TEXT,
    is_control   INTEGER NOT NULL
, at INTEGER, sum INTEGER);
INSERT INTO "inbox" VALUES(1,2,X'919311A7756E6865617264C40107','x2',0,NULL,3806409628);
CREATE TABLE instance (
    key           INTEGER PRIMARY KEY,
    id            TEXT NOT NULL UNIQUE,
    execution_id  TEXT NOT NULL,
    name          TEXT NOT NULL,
    version       TEXT,
    status        TEXT NOT NULL,
    start         BLOB NOT NULL,
    start_number  INTEGER NOT NULL,
    wake_at       INTEGER,
    created_at    INTEGER NOT NULL,
    completed_at  INTEGER,
    custom_status BLOB,
    output        BLOB,
    failure       BLOB,
    problem       BLOB,
    orphans       BLOB,
    parent_id     TEXT,
    tags          TEXT
, progress BLOB, is_entity INTEGER NOT NULL DEFAULT 0, last INTEGER, start_sum INTEGER, sum INTEGER, problem_sum INTEGER);
INSERT INTO "instance" VALUES(1,'done','x1','works',NULL,'COMPLETED',X'919B03A5776F726B73C405A47468656EA4646F6E65A27831C0C0C0C0C3C0',0,NULL,1767225600000000,1767225600000000,NULL,X'AA4245464F52455448454E',NULL,NULL,NULL,NULL,NULL,NULL,0,3,3971864792,1794324011,NULL);
INSERT INTO "instance" VALUES(2,'waits','x2','rounds',NULL,'RUNNING',X'919B03A6726F756E6473C40102A57761697473A27832C0C0C0C0C3C0',0,NULL,1767225600000000,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'{"team": "red"}',NULL,0,2,1030637780,3732655757,NULL);
INSERT INTO "instance" VALUES(3,'fresh','x3','works',NULL,'PENDING',X'919B03A5776F726B73C406A56672657368A56672657368A27833C0C0C0C0C3C0',0,0,1767225600000000,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,0,0,682222469,1326764329,NULL);
CREATE TABLE payload (
    digest  BLOB NOT NULL UNIQUE,
    content BLOB NOT NULL
);
CREATE TABLE payload_use (
    owner  INTEGER NOT NULL,
    digest BLOB NOT NULL,
    PRIMARY KEY (owner, digest)
) WITHOUT ROWID;
CREATE TABLE purged (
    day       INTEGER NOT NULL,
    cause     TEXT NOT NULL,
    instances INTEGER NOT NULL, sum INTEGER,
    PRIMARY KEY (day, cause)
) WITHOUT ROWID;
CREATE TABLE sealing_key (
    key_id TEXT PRIMARY KEY
) WITHOUT ROWID;
CREATE TABLE served (
    name       TEXT NOT NULL,
    version    TEXT NOT NULL,
    digest     TEXT NOT NULL,
    is_default INTEGER NOT NULL, sum INTEGER,
    PRIMARY KEY (name, version)
) WITHOUT ROWID;
CREATE TABLE suspect (
    instance   INTEGER PRIMARY KEY,
    piece      INTEGER NOT NULL,
    is_held    INTEGER NOT NULL,
    is_watched INTEGER NOT NULL,
    party      INTEGER NOT NULL,
    strikes    INTEGER NOT NULL,
    releases   INTEGER NOT NULL,
    alibis     INTEGER NOT NULL
, sum INTEGER);
CREATE TABLE tag (
    name       TEXT NOT NULL,
    value      TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    instance   INTEGER NOT NULL,
    PRIMARY KEY (name, value, created_at, instance)
) WITHOUT ROWID;
INSERT INTO "tag" VALUES('team','red',1767225600000000,2);
CREATE TABLE transacted (
    instance     INTEGER NOT NULL,
    execution_id TEXT NOT NULL,
    task         INTEGER NOT NULL, sum INTEGER,
    PRIMARY KEY (instance, execution_id, task)
) WITHOUT ROWID;
CREATE INDEX instance_wake ON instance (wake_at, key) WHERE wake_at IS NOT NULL;
CREATE UNIQUE INDEX history_piece ON history (instance, number);
CREATE INDEX inbox_instance ON inbox (instance, number);
CREATE INDEX instance_created ON instance (is_entity, created_at);
CREATE INDEX instance_name ON instance (is_entity, name, created_at);
CREATE INDEX instance_status ON instance (is_entity, status, created_at);
CREATE INDEX instance_parent ON instance (parent_id, created_at) WHERE parent_id IS NOT NULL;
CREATE INDEX instance_parked ON instance (is_entity, created_at) WHERE problem IS NOT NULL;
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
CREATE INDEX instance_ended ON instance (status, completed_at) WHERE completed_at IS NOT NULL;
CREATE UNIQUE INDEX execution_number ON execution (instance, number);
CREATE INDEX suspect_held ON suspect (instance) WHERE is_held;
CREATE INDEX instance_open ON instance (name, coalesce(version, '')) WHERE completed_at IS NULL;
CREATE INDEX payload_use_digest ON payload_use (digest);
CREATE TRIGGER instance_used AFTER DELETE ON instance
BEGIN
    DELETE FROM payload_use WHERE owner = old.key;
END;
CREATE TRIGGER message_used AFTER DELETE ON inbox WHEN instr(old.event, x'C172') > 0
BEGIN
    DELETE FROM payload_use WHERE owner = -old.number;
END;
CREATE TRIGGER payload_used AFTER DELETE ON payload_use
WHEN NOT EXISTS (SELECT 1 FROM payload_use WHERE digest = old.digest)
BEGIN
    DELETE FROM payload WHERE digest = old.digest;
END;
COMMIT;
PRAGMA user_version = 10;
PRAGMA application_id = 1380338775;
