"""Segtrail: train segmentation models, and know with evidence which run is better and why."""

__version__ = "0.1.0"
