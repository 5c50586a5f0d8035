"""One experiment under way: a process holds its lock, asks the algorithm and starts trials."""
