"""Fine-tune chat language models: one YAML file and one chat JSONL file become a tuned model."""

__version__ = "0.1.0"  # stated here, as a job that is submitted by hand has the package without its metadata
