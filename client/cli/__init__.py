"""`fedmri-site`, one file for each group of verbs."""
