-- Purging: who has finished and when, who was started by whom, which executions are the oldest, and how many instances have gone on each day.
CREATE INDEX instance_ended ON instance (status, completed_at) WHERE completed_at IS NOT NULL;
CREATE UNIQUE INDEX execution_number ON execution (instance, number);
CREATE TABLE purged (
    day       INTEGER NOT NULL,
    cause     TEXT NOT NULL,
    instances INTEGER NOT NULL,
    PRIMARY KEY (day, cause)
) WITHOUT ROWID;
