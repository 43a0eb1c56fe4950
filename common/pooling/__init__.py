"""Poolings that a configuration can name: how a patient's patch tokens become one vector a modality."""
