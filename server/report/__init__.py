"""report.json and the page that is rendered from it."""
