"""The next patient: an answer, how far to believe it, and its card."""
