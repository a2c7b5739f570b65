"""A served index of six small sounds with a tiny model, in process and over HTTP."""

from __future__ import annotations
