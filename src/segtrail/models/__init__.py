"""Architectures: normalized image in, Output out."""
