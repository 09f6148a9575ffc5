"""A publication -> the configuration of its store job."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from gog import spec as settings
from gog.offers import Asked


def config(asked: Asked, own: settings.StoreSpec, target: settings.StoreSpec) -> dict[str, Any]:
    """The configuration of `gog move publish`.

    Args:
        asked: what is published.
        own: the run's store.
        target: the agent's store.
    """
    fields = {name: value for name, value in asdict(asked).items() if name != "gate"}
    return {
        **fields,
        "gate": asked.gate.as_given(),
        "store": own.as_given(),
        "target": target.as_given(),
    }
