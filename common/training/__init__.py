"""One local epoch as a function: state in, state out."""
