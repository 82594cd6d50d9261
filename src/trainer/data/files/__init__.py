"""Commands over whole files: split, statistics, rejects, preview."""
