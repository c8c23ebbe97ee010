"""Who enters an analysis: criteria, choice of series, match with labels, split, manifest, and the count of all who left."""
