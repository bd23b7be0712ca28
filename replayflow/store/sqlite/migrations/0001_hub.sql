-- The hub itself: who owns it, and the next number of everything that is numbered.
CREATE TABLE hub (
    id          INTEGER PRIMARY KEY CHECK (id = 1),
    epoch       INTEGER NOT NULL,
    owner_pid   INTEGER,
    owner_host  TEXT,
    owner_since INTEGER,
    next_key    INTEGER NOT NULL,
    next_number INTEGER NOT NULL
);
INSERT INTO hub (id, epoch, next_key, next_number) VALUES (1, 0, 1, 1);

-- An instance, as its status shows it. Times are microseconds since 1970; payloads and events are encoded.
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
);
CREATE INDEX instance_wake ON instance (wake_at, key) WHERE wake_at IS NOT NULL;
CREATE INDEX instance_parked ON instance (key) WHERE problem IS NOT NULL;

-- The pieces of history: one an episode, appended and never changed. A rowid table with an index of two integers appends fastest.
CREATE TABLE history (
    instance INTEGER NOT NULL,
    number   INTEGER NOT NULL,
    at       INTEGER NOT NULL,
    events   BLOB NOT NULL
);
CREATE UNIQUE INDEX history_piece ON history (instance, number);

-- Where in an instance's history each of its past executions begins.
CREATE TABLE execution (
    instance     INTEGER NOT NULL,
    execution_id TEXT NOT NULL,
    number       INTEGER NOT NULL,
    PRIMARY KEY (instance, execution_id)
) WITHOUT ROWID;

-- Messages that no history has yet.
CREATE TABLE inbox (
    number       INTEGER PRIMARY KEY,
    instance     INTEGER NOT NULL,
    event        BLOB,
    execution_id TEXT,
    is_control   INTEGER NOT NULL
);
CREATE INDEX inbox_instance ON inbox (instance, number);

-- Which messages have been accepted once, by the key that their sender gave them.
CREATE TABLE dedupe (
    instance INTEGER NOT NULL,
    key      TEXT NOT NULL,
    PRIMARY KEY (instance, key)
) WITHOUT ROWID;

-- The code that the hub's instances were last known to fit: orchestrators by name, each with a digest of its bytecode.
CREATE TABLE code (
    name   TEXT PRIMARY KEY,
    digest TEXT NOT NULL
) WITHOUT ROWID;
