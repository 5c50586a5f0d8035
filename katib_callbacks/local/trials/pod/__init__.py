"""A folder on the path of a trial's Python: the part of a pod that Katib's own SDK looks for."""
