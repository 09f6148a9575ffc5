"""The journal of a stage's episodes: finished turns, kept in the store until a checkpoint makes them superfluous.

A killed process loses what it holds in memory. So each episode appends its turns to a journal before it continues from
them, and a restarted stage takes finished trajectories whole and continues the others where their journal ends.

    journal/<stage>/<policy>-<step>/<digest>/<generation>-<attempt>-<rank>-<number>

A play (one policy on one step's questions) is a folder, named by a digest of everything that decides it: settings,
weights, dataset. A journal of anything else has another name and is never read. A play that goes on while the weights change
is not named by them: there each turn records a digest of those that sampled it, because two attempts may have different
weights under one version. Stores cannot append, so each process writes small objects, one for all records that came together
(group commit).

The journal is a log of work, not a result: nothing refers to it, and a checkpoint deletes it. It does not keep the
answers of tools; those are in the observations, and in the tool cache where one is configured.

    records.py   bytes of an object; pure
    chains.py    which records make up a trajectory, where several attempts wrote; pure
    writer.py    appends in a thread of its own
    plays.py     the objects of a play in a store
"""

from gog.journal.chains import Chains, Found
from gog.journal.plays import Play, Reader, listed, prune, sweep
from gog.journal.records import Kept
from gog.journal.writer import NO_WEIGHTS, Line, Writer

__all__ = ["NO_WEIGHTS", "Chains", "Found", "Kept", "Line", "Play", "Reader", "Writer", "listed", "prune", "sweep"]
