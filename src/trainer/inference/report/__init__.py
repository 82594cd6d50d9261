"""What evaluation found, as pages for people. `write.py` is the report of a run, `compare.py` that of several."""
