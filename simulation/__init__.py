"""Phantom hospitals, virtual sites and baselines on one machine."""
