"""`fedmri-server`, one file for each group of verbs."""
