"""Evaluation: retrieval, zero-shot classification, tagging and probes. Begin at `runner.evaluate`."""
