"""Builders of the PromQL expressions used here. Pure.

A share divides by what happened and is absent, not NaN, where nothing did: 0 of 0 calls is neither good nor bad.
"""

from __future__ import annotations

RATE = "$__rate_interval"


def per_second(metric: str, where: str, by: str, window: str = RATE) -> str:
    """
    >>> per_second("gog_x_total", 'run="a"', "tool", "5m")
    'sum by (tool) (rate(gog_x_total{run="a"}[5m]))'
    """
    return f"sum by ({by}) (rate({metric}{{{where}}}[{window}]))"


def grown(metric: str, where: str, by: str) -> str:
    """By how much a counter grew over the time that is shown, over all processes that had it, in whole numbers:
    `increase` reckons what lies before the first scrape and after the last, and gives fractions.

    >>> grown("gog_x_total", 'run="a"', "tool")
    'round(sum by (tool) (increase(gog_x_total{run="a"}[$__range])))'
    """
    return f"round(sum by ({by}) (increase({metric}{{{where}}}[$__range])))"


def share(metric: str, part: str, where: str, by: str, window: str = RATE) -> str:
    """Share of a counter's rate that has the labels `part`, by the labels `by`."""
    some, all_ = (per_second(metric, labels, by, window) for labels in (joined(where, part), where))
    return f"{some} / ({all_} > 0)"


def share_by(metric: str, part: str, where: str, kind: str, window: str = RATE) -> str:
    """Shares of the total rate by the label `kind`; they add up to the whole share."""
    some = per_second(metric, joined(where, part), kind, window)
    return f"{some} / on () group_left () (sum(rate({metric}{{{where}}}[{window}])) > 0)"


def quantile(of: float, histogram: str, where: str, by: str, window: str = RATE) -> str:
    """Quantile of a histogram; absent rather than NaN when nothing was observed."""
    return f"histogram_quantile({of}, sum by (le, {by}) (rate({histogram}_bucket{{{where}}}[{window}]))) >= 0"


def joined(*labels: str) -> str:
    """
    >>> joined('a="1"', "", 'b="2"')
    'a="1",b="2"'
    """
    return ",".join(each for each in labels if each)
