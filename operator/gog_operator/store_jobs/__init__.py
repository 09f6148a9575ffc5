"""What `gog move` does in a store with a run's own credentials: looks, verifies, copies, retires, publishes, reports.

Each move may be killed at any point and done again: what is done already is found done. Nothing here imports torch or
speaks to Kubernetes.
"""
