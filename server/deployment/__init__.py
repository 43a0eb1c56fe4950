"""The coordinator's programs, registry and settings."""
