"""Faults of rows that are legal and yet bad: found, and mended in a copy."""
