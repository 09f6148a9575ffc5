"""Rollout engines: they turn sessions' requests for a next turn into sampled tokens."""
