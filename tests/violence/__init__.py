"""Real violence: real processes, real files, real signals. What each does to a hub, and what the hub's worker and clients say of it."""
