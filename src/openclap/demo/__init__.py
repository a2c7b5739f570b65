"""The demo: pack, train, evaluate and search on bundled sounds."""
