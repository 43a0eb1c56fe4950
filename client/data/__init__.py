"""A hospital's images become a site folder: read, told apart, registered, named anew."""
