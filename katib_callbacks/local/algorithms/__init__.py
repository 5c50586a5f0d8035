"""The search algorithms, with Katib's names and settings, and the space that they search."""
