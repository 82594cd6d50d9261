"""`trainer data generate`: a chat set from documents, written by a model behind OpenAI's chat route."""
