"""Attempts at a stage, alone and in two ranks."""

from __future__ import annotations

import threading

from gog import spec
from gog.errors import UserError
from gog_recipes.runtime.ranks import SINGLE, Ranks
from gog_recipes.runtime.stage import Stage


def make_stage(folder, ranks=SINGLE, **settings):
    body = {"run": "ours", "model": {"base": "tiny"}, "data": {"path": str(folder)}, **settings}
    return Stage(spec.GRPOConfig.model_validate(body | {"store": {"uri": f"file://{folder}/store"}}), ranks)


def commit(stage, step=1):
    weights = stage.workdir / "weights"
    weights.write_text(f"{step}")
    stage.publish(step, {"weights": weights}, meta={}, parents=[], complete=False)


def in_two_ranks(act):
    """[act(ranks) of each of two ranks], which are threads; an exception in the place of a result."""
    barrier, items, results = threading.Barrier(2), {}, {}

    class Rank(Ranks):
        def gather(self, item):
            items[self.rank] = item
            barrier.wait(10)
            found = [items[rank] for rank in range(self.size)]
            barrier.wait(10)
            return found

    def run(ranks):
        try:
            results[ranks.rank] = act(ranks)
        except UserError as error:
            results[ranks.rank] = error

    threads = [threading.Thread(target=run, args=(Rank(rank, 2),)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [results[rank] for rank in range(2)]
