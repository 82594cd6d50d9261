"""Rows of other layouts as chat rows."""
