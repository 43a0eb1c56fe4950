"""What commands of all three programs show while they work."""
