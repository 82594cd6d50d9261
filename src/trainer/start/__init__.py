"""A config, and data that fits it, made of what a user has."""
