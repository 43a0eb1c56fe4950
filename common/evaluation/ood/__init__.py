"""Patients unlike those in training (out of distribution)."""
