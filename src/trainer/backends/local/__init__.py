"""Runs of this machine."""
