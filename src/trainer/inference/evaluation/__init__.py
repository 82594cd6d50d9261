"""Did a fine-tune get better: a run's models on the same held-out rows. `comparison.py` is the story."""
