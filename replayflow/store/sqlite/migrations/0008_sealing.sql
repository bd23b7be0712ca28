-- The ids of the keys that have sealed anything here: where there are none, nothing has to be looked through for what is sealed.
CREATE TABLE sealing_key (
    key_id TEXT PRIMARY KEY
) WITHOUT ROWID;
