"""Use models in other libraries and benchmarks, each in a file of its own, and convert between formats."""
