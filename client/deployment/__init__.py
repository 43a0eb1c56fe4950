"""A site that is deployed: its folder, its keys, its programs."""
