"""What happened in a run, as a tree of spans: run, stage's attempt, episode, turn, tool call, attempt of the call.

Metrics say how many calls were slow; a trace says which turn of which episode waited, and for what. NoopTracer unless the
manifest names a collector: then opentelemetry is not even imported, and a place that tells costs a look at a variable.

An episode's spans are held back until it ends (`record`); then it is known whether they are wanted (`episodes`), and a
thread brings them to the collector (`outlet`, `otlp`). Ids follow from the run's uid, so that the control plane and the
processes of all stages build one tree without a word between them (`ids`). No text of a prompt, a page or an answer is
ever part of it.
"""

from gog.tracing.describe import tool_call
from gog.tracing.episodes import NOOP, NoopTracer
from gog.tracing.record import span

__all__ = ["NOOP", "NoopTracer", "span", "tool_call"]
