"""General items with deterministic checks, which show what a base could do and the tuned model has lost."""
