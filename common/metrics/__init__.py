"""Measures of predictions, with intervals over patients."""
