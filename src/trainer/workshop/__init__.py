"""Work on data and models beyond what the format asks for: above the backends, below the commands."""
