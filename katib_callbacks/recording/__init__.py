"""One training run, from its first epoch to its rows: what the adapters of all frameworks share."""
