"""One report: who reports, to which sinks, in which order of time, and what became of it."""
