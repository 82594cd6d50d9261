"""Data of other layouts as chat JSONL."""
