"""Composition, checking and building of an experiment from its config."""
