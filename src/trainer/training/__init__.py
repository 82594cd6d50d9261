"""Training on this machine. `fit.py` is the story from the data to the adapter; the rest is beside it."""
