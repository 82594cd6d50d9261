"""Whether a fine-tune got better: base and tuned model on the same held-out rows. `evaluate.py` is the story."""
