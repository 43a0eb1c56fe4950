"""A site folder becomes cases, cases become slices, slices become batches."""
