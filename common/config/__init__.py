"""Configuration of a run and of a site, and how both are read."""
