"""Plugins of Hydra, which finds them under this package name alone."""
