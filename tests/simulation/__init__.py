"""Deterministic simulation: the whole engine in a world whose time, chance and faults come from one seed.

    python -m tests.simulation --seeds 200 --steps 500

What is simulated, and what is not, is in `docs/decisions/0026-simulation.md`.
"""
