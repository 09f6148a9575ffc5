"""Calling every tool of a run once, and saying what is wrong in words: the check before a run asks for a GPU."""
