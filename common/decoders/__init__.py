"""How patch tokens become a value for each pixel: one file a decoder, a line in `registry`."""
