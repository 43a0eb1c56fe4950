"""Frozen backbones: one file for each family behind one protocol, and where their weights come from."""
