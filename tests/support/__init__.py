"""Helpers that several test files import: small models, servers, generated data."""
