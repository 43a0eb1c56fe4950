"""How the sites' pairs of low-rank factors become the next global pair. To add a way: one file here, one line in `registry`."""
