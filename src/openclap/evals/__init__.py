"""Measuring a model: retrieval, zero-shot labels and a linear probe, with intervals and against chance."""
