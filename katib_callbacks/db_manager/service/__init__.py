"""The way of a call: limits, the checks of its request, its answer."""
