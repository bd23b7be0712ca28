-- The code that workers served last, by the name and version of the instances that it runs; the empty version is that of those without one.
CREATE TABLE served (
    name       TEXT NOT NULL,
    version    TEXT NOT NULL,
    digest     TEXT NOT NULL,
    is_default INTEGER NOT NULL,
    PRIMARY KEY (name, version)
) WITHOUT ROWID;
INSERT INTO served (name, version, digest, is_default) SELECT name, '', digest, 0 FROM code;
DROP TABLE code;

-- What is open, by the code that it needs: a starting worker jumps from one name and version to the next.
CREATE INDEX instance_open ON instance (name, coalesce(version, '')) WHERE completed_at IS NULL;
