-- Transactional activities that have had their one run; see docs/decisions/0016-transactional-activities.md.
CREATE TABLE transacted (
    instance     INTEGER NOT NULL,
    execution_id TEXT NOT NULL,
    task         INTEGER NOT NULL,
    PRIMARY KEY (instance, execution_id, task)
) WITHOUT ROWID;
