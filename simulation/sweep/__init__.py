"""A declared grid of settings, run arm by arm and seed by seed; the winner is named by the training hospitals' own patients."""
