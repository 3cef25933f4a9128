"""Palettes, overlays and panels as uint8 arrays."""
