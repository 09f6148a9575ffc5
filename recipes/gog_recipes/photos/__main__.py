"""Makes the photo world: a dataset, a detector and an encoder. `make photos` also fetches the packages and builds the index.

    python -m gog_recipes.photos --stamps DIR --photographs DIR --out DIR

DIR/data is the dataset, DIR/detector and DIR/encoder are the tools' weights. What exists is kept. At the end it prints how
well the tools find and tell apart things that they were not trained on.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from gog.errors import UserError
from gog_recipes.photos import cutouts, generate, measure, scenes, train


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser("python -m gog_recipes.photos", description=__doc__.splitlines()[0])
    parser.add_argument("--stamps", type=Path, required=True, help="cut-outs: the folder stamps of Tux Paint")
    parser.add_argument("--photographs", type=Path, required=True, help="put behind them: JPEG, PNG or WebP")
    parser.add_argument("--out", type=Path, required=True, help="where everything is written")
    parser.add_argument("--train", type=int, default=1200, help="training questions (default: 1200)")
    parser.add_argument("--test", type=int, default=300, help="held-out questions (default: 300)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=float, default=1.0, help="share of the tools' usual steps of training")
    given = parser.parse_args(arguments)
    try:
        _make(given)
    except UserError as error:
        print(f"photos: {error.sentence()}", file=sys.stderr)
        return 2
    return 0


def _make(given: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    data: Path = given.out / "data"
    known, behind = cutouts.read(given.stamps), scenes.Photographs(given.photographs)
    if not (data / generate.STAMP).is_file():
        sizes = generate.Sizes(given.train, given.test, given.seed)
        generate.write(data, known, behind, sizes)
        print(f"{data}: {given.train:,} training questions, {given.test:,} held out", flush=True)
    own, paths = generate.split(known)[0], behind.split()[0]
    for name, make, steps in (
        ("detector", train.detector_on, train.DETECTOR_STEPS),
        ("encoder", train.encoder_on, train.ENCODER_STEPS),
    ):
        out: Path = given.out / name
        if not out.is_dir():
            partial = out.with_name(f"{name}.partial")
            make(own, behind, paths, partial, steps=max(1, round(steps * given.steps)), log=_log)
            partial.rename(out)
    print(measure.sentence(measure.on(data, given.out)))


def _log(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
