"""Frozen backbone, multi-modal tokens, adapters, head: what is trained and what travels."""
