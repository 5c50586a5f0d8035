"""The changes of a home, in order: each change of the store once, with a number that is never given again."""
