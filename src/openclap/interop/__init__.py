"""Use models in other libraries and benchmarks, one file each, and convert between formats."""
