"""Backends: one folder for each place where runs execute, chosen by `backend.kind`."""
