"""Networks that segment and are not ours, trained from scratch on the same patients by one loop: decoders stand beside them."""
