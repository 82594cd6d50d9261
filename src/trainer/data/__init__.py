"""Chat JSONL files: read, checked to the line, rendered to tokens and packed."""
