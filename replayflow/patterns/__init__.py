"""Patterns that are made of orchestrations, and need nothing of the engine but what every orchestrator gets."""
