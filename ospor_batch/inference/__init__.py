"""A shard of the work list to prediction and reject rows, on a worker that needs NumPy, Arrow, pydicom and nibabel only."""
