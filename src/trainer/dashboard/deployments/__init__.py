"""Endpoints of all runs, their cost, and the way to make and to remove them."""
