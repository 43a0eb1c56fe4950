"""Patient-level differential privacy: gradients, noise, accounting."""
