"""Make the bundled model, step by step; each module has its command in its docstring."""
