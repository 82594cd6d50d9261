"""A model as the judge of a run: which of two answers it prefers, asked in both orders."""
