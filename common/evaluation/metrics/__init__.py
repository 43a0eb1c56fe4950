"""Measures with intervals, and two models on the same patients."""
