"""Questions to a run's model and to its base side by side, from this machine or from a deployment."""
