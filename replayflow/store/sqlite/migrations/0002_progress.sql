-- How far an instance's open maps are, so that its status can say so without its history.
ALTER TABLE instance ADD COLUMN progress BLOB;
