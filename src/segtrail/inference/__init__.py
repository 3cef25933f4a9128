"""Predictors, post-processing and export."""
