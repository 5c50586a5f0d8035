"""The ways to authenticate a caller of the trial listener, and the trials that it may report for."""
