"""The commands: arguments become one call. Nothing here imports torch, transformers or a service's SDK."""
