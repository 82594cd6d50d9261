"""Fine-tune chat language models: one YAML file and one chat JSONL file become a tuned model."""
