"""LAION-CLAP imports it for images and uses nothing of it."""
