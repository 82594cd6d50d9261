"""OpenAI's fine-tuning service, and Azure OpenAI's."""
