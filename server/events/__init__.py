"""The record of a run: one append-only log of events, and the pure functions that rounds, status and console lines come of."""
