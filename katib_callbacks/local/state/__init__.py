"""Experiments and trials as they are stored: the rows, their states, and what they are in Katib's API."""
