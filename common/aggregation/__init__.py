"""How the sites' changes become the next global arrays. To add a way: one file here, one line in `registry`."""
