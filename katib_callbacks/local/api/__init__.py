"""Katib's objects: models, their JSON, and the checks of Katib's webhook."""
