"""What `gog move` does in a store with a run's own credentials: check, promote, retire, publish a dataset, write a report.

Each command may be killed at any point and repeated: what is done already is found done. Nothing here imports torch or
talks to Kubernetes.
"""
