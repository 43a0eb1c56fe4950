"""Releasing a model: exported files, each checked against the trained model, a model card, a signed manifest."""
