"""What `check` looks at beyond the gate: things that no one file shows, and that keep nobody out."""
