"""Pictures of experiments: on a page, in a terminal, in files."""
