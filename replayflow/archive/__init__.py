"""Histories outside of a hub: written as lines of JSON, read back, and gone through event by event."""
