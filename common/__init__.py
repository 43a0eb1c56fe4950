"""What hospitals and coordinator must agree on. Imports nothing else of ours."""
