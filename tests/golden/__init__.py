"""What this and former versions have written, kept for ever: histories, and whole hubs, with the code that they ran.

Every version reads them, fits them and goes on with them; `python -m tests.golden.record` writes those of a new one.
"""
