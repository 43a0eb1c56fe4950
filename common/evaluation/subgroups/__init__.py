"""Groups of patients, and how their images were acquired."""
