"""The pure core: history in, decisions out. No clock, no chance, no I/O, no await."""
