"""A hospital's images become a site folder: read, told apart, registered, named anew. Installed, and never part of a bundle."""
