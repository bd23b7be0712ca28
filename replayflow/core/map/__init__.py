"""Maps: a call for each of many items, as one task."""
