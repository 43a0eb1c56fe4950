"""Trained models on disk: opened, exported, merged."""
