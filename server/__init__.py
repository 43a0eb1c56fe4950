"""The coordinator: strategy, checkpoints, external evaluation, report."""
