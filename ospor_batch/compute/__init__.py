"""Map a function over work: in line, on a local Dask cluster, on GPUs, or at an address."""
