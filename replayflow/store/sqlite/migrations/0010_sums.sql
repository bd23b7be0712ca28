-- Checksums; see docs/decisions/0028-checksums.md. What is there gets its sums in the same transaction (filling.py): from then on NULL is damage.
-- `last` is the number of the piece that the row was written with; the time of a piece (history.at) is stored 31-fold from here on.
ALTER TABLE instance ADD COLUMN last INTEGER;
ALTER TABLE instance ADD COLUMN start_sum INTEGER;
ALTER TABLE instance ADD COLUMN sum INTEGER;
ALTER TABLE instance ADD COLUMN problem_sum INTEGER;
ALTER TABLE history ADD COLUMN sum INTEGER;
ALTER TABLE execution ADD COLUMN sum INTEGER;
ALTER TABLE inbox ADD COLUMN sum INTEGER;
ALTER TABLE dedupe ADD COLUMN sum INTEGER;
ALTER TABLE transacted ADD COLUMN sum INTEGER;
ALTER TABLE suspect ADD COLUMN sum INTEGER;
ALTER TABLE served ADD COLUMN sum INTEGER;
ALTER TABLE purged ADD COLUMN sum INTEGER;

-- The hub's own row. A worker of an older version that still runs begins every transaction with `SELECT epoch, ..., data_version FROM hub,
-- pragma_data_version`: with a column of that name here it is ambiguous, and the worker writes no more. What it wrote would bear no sums.
ALTER TABLE hub ADD COLUMN sum INTEGER;
ALTER TABLE hub ADD COLUMN data_version INTEGER;
