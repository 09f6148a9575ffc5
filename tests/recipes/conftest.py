"""Real tool servers for recipes, and a chain of finished stages."""

from support.killed_stage import judge, uninterrupted  # noqa: F401
from support.photo_chain import photo_pool  # noqa: F401
from support.stage_chain import chain, endpoints, make, tools_over, world  # noqa: F401
