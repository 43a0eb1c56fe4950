"""The page of `fedmri-site check --html`: every patient's slices as the model sees them, what was found beside them."""
