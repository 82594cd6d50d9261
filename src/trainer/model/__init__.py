"""The base model: where it is found, how it is loaded, its tokenizer and its adapter."""
