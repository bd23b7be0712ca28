"""The crash matrix: every durable operation, on a real SQLite file, killed at every point, and its log cut at every place.

**The law.** After recovery the file holds a committed prefix: all tables, row by row, are what they were before a transaction or after it, never
between; SQLite's own check finds nothing; nothing is kept for what is not there; and what `write` had returned for is there. A store opens the file
and shows what the memory store shows, and a worker goes on from there.

**Killed process** (`recording.py`): what a process leaves that is killed between two statements is its files as they are then. They are copied before
each statement and after the last. Before COMMIT the copies must come to the state before, after it to the state after. With a page cache of a few
pages SQLite writes to the log in mid-transaction, so that the copies differ from statement to statement. `killed.py` does the same with processes
that SIGKILL ends.

**Lost power** (`cuts.py`): of what was written since the last sync any part may be missing. The log is cut at every frame and within frames, with
nothing, zeros, noise or the frames of an earlier round behind the cut; the checkpoint is stopped after every page and in mid-page.
A cut above the last commit that was told of is a loss of power; one below it is a disk that lies about its syncs, or `synchronous="NORMAL"`: then
commits are lost, whole ones and the last ones.

`python -m tests.store.crashes` tries all of it; the test suite a part, and says which.
"""
