"""The hospital: local training, its policy, its command."""
