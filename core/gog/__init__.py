"""gog: the Glance-or-Gaze method, free of trainers, clusters and servers.

Everything here is plain Python: what an episode is, how a turn is read, what a reward is, how a run is described.
Trainers (`gog_recipes`), tool servers (`gog_tools`) and the control plane (`gog_operator`) build on it and never on
each other.
"""

__version__ = "0.1.0"
