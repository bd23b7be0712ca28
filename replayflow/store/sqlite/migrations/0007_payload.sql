-- Contents of large payloads, kept once for all who refer to them. What stands in their place names them by the SHA-256 of their bytes.
CREATE TABLE payload (
    digest  BLOB NOT NULL UNIQUE,
    content BLOB NOT NULL
);

-- Who refers to which: an instance by its key, for its start, its history and its row; or a message in an inbox, by its number with a minus.
CREATE TABLE payload_use (
    owner  INTEGER NOT NULL,
    digest BLOB NOT NULL,
    PRIMARY KEY (owner, digest)
) WITHOUT ROWID;
CREATE INDEX payload_use_digest ON payload_use (digest);

-- Whoever removes a row has removed what only it referred to, by whatever statement.
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
