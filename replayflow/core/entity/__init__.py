"""Entities: state with a name that does one thing at a time."""
