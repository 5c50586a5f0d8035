"""From an objective function in Python to an Experiment."""
