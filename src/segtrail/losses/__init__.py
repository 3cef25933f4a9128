"""Losses: raw logits and labels in, a scalar out."""
