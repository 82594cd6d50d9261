"""Azure Machine Learning: the same training as a job there."""
