"""Talking to models: what a chat needs of one, and the models of finished runs."""
