"""Rows of a run's training data that deserve a look: `examine.py` is the story."""
