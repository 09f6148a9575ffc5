"""docs/metrics.md: what is told, by whom, and how it is collected. Generated, so that it cannot be behind the code."""

from __future__ import annotations

from collections.abc import Iterable

from gog.metrics import definitions
from gog.metrics.pages import Definition, Page, Values

SECTIONS = (
    (definitions.STAGES, "Stages", "On the page of a stage's rank 0, for all its ranks (gauges are its own)."),
    (definitions.PROCESS, "The store", "On the page of every process that has opened a store: stages, policy servers."),
    (definitions.SERVERS, "Tool servers", "On the page of each server, as its clients saw it."),
    (definitions.RUNS, "Runs", "On the operator's page, and locally on that of `gog run --metrics-port`."),
    (definitions.OPERATOR, "The operator", "On the operator's page."),
)

HEAD = """# Metrics

Made by `make docs` from `core/gog/metrics`; change them there.

Everything is in base units. Labels are bounded: none holds a step, an address or an id. Every outcome starts at 0, so
that "nothing failed" and "nothing is known" differ; a gauge without labels is absent until there is something to tell.
Pages of servers also have `process_*` (CPU time, memory, open files).

## Collection

**On one machine.** `gog run FILE --metrics-port 9400` serves `/metrics` of the run itself, and `/targets`, which lists
the pages of all its processes as they come and go. A Prometheus needs no more than

```yaml
scrape_configs:
  - job_name: gog
    scrape_interval: 5s
    http_sd_configs: [{url: "http://127.0.0.1:9400/targets", refresh_interval: 5s}]
```

Series have the label `pod`: the stage's or the server's name.

**On a cluster.** `monitoring.podMonitor: true` makes PodMonitors for stages, servers and the operator (Prometheus
operator needed). Series have the labels `namespace`, `pod` and `run`. Of a stage with several pods the first is scraped:
it tells the counts of all ranks, as of the end of the last rollout. Movers are not scraped.

**The last scrape.** A stage that ends takes its last figures with it. With `GOG_METRICS_LINGER` seconds in its
environment, one that has ever been scraped waits that long, at a clean end, for one more scrape. `gog run
--metrics-port` sets 15, the chart 45 (`monitoring.lastScrapeSeconds`); else it is 0.

**What calls cost.** Behind a server whose answers are bought, say so in the headers of each answer:
`x-gog-cost-usd` is counted as spend, `x-gog-credit-usd` is shown as what is left.
"""


def page() -> str:
    """The whole file."""
    return "\n".join([HEAD, *(line for section in SECTIONS for line in _section(*section))])


def _section(page: Page, title: str, text: str) -> Iterable[str]:
    yield from (f"## {title}", "", text, "", "| Metric | Unit | Labels | Meaning |", "|---|---|---|---|")
    yield from (_row(each) for each in page.definitions)
    yield ""


def _row(each: Definition) -> str:
    labels = "<br>".join(f"`{name}`: {_values(values)}" for name, values in each.labels.items())
    buckets = f" Buckets: {', '.join(f'{bound:g}' for bound in each.buckets)}." if each.buckets else ""
    return f"| `{each.exposed}`<br>{each.kind} | {each.unit} | {labels} | {each.help}{buckets} |"


def _values(values: Values) -> str:
    return values if isinstance(values, str) else ", ".join(values)
