"""The mutation check: the source is broken on purpose, in one place after another, and the suite has to notice each time.

`python -m tests.mutations [--only NAME]` says of each mutation which test killed it, and after how long; or that it SURVIVED, which is a hole in the
suite. Every trial works on a copy of the tree: the source itself is never touched.
"""
