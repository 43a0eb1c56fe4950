"""Out of distribution: patients unlike those in training."""
