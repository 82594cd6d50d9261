"""Conversations become tokens and labels, by the model's own chat template."""
