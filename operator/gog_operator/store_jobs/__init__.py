"""Commands of `gog move`, which access a store with a run's own credentials: check, promote, retire, publish, report,
erase.

Each command is idempotent, so that it may be killed at any point and repeated. This package does not import torch or
use the Kubernetes API.
"""
