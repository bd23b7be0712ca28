-- Instances that were in flight when a worker died, at the piece of history that they had; see docs/decisions/0015-poison.md.
CREATE TABLE suspect (
    instance   INTEGER PRIMARY KEY,
    piece      INTEGER NOT NULL,
    is_held    INTEGER NOT NULL,
    is_watched INTEGER NOT NULL,
    party      INTEGER NOT NULL,
    strikes    INTEGER NOT NULL,
    releases   INTEGER NOT NULL,
    alibis     INTEGER NOT NULL
);
CREATE INDEX suspect_held ON suspect (instance) WHERE is_held;
