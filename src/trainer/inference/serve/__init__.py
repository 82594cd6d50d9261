"""An OpenAI-compatible server for one run's model on one machine: for trying it out, not for production."""
