"""Fixtures for all tests of downloading."""

from support.isolation import no_proxies, quick_disk

__all__ = ["no_proxies", "quick_disk"]
