"""What one request makes a site do."""
