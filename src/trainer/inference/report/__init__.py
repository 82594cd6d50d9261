"""Results of evaluation as pages for people: `run_report.py` of a run, `standings.py` of several."""
