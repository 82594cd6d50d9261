"""A fine-tuning service on this machine, in OpenAI's and Azure's flavours, for tests and for `make demo-openai`."""
