"""Which of a run's global arrays are kept."""
