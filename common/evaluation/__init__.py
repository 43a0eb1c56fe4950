"""Metrics with intervals, and the probe beside them."""
