"""Where a trial's metrics are found, beside those that it pushes."""
