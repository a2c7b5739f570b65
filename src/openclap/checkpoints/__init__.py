"""Weights in files: our own folder, and the formats that others wrote."""
