"""Serve models and indexes: over HTTP (`openclap serve`) and to assistants (`openclap mcp`).

It takes `Library` and `Embedder` objects and imports no torch.
"""
