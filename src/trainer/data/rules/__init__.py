"""The rules of chat JSONL, and the findings that break them."""
