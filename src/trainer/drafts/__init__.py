"""Runs that are not begun: a config as a form, the files it may use, and checks of it in processes of their own."""
