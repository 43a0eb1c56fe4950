"""The rounds: who is asked, what is accepted, how it is aggregated."""
