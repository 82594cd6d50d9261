"""Data files of runs and folders: what they hold, row by row, and corrected rows as a new version beside them."""
