"""The rule about parts of public benchmarks names the same benchmarks to the API server as to Python."""

from __future__ import annotations

import re

import pytest

from gog import benchmarks
from gog.spec import EvaluateSettings
from gog_operator.api import evaluation_rules, rules

NAMES = [
    *(
        "FVQA",
        "fvqa_test",
        "fvqa-test",
        "Live VQA",
        "mmsearch-mini",
        "test",
        "attest",
        "fvqa-100",
        "testfvqa",
        "fvqatesttest",
    ),
    *("InfoSeek", "infoseek", "Simple-VQA-Test", "dynvqa.", "-dynvqa", ""),
]


@pytest.mark.parametrize("name", NAMES)
def test_a_public_benchmark_is_recognised_by_the_api_server_as_by_python(name):
    calls = [evaluation_rules._is_named("self.split", public) for public in benchmarks.SIZES]
    forms = [re.fullmatch(r"self\.split\.matches\('(.*)'\)", call)[1] for call in calls]
    found = [public for public, form in zip(benchmarks.SIZES, forms, strict=True) if re.search(form, name)]
    assert found == ([benchmarks.named(name)] if benchmarks.named(name) else [])


@pytest.mark.parametrize(
    ("settings", "valid"),
    [
        ({"questions": 100}, True),
        ({"split": "fvqa_test"}, True),
        ({"split": "fvqa_test", "questions": 1800}, True),
        ({"split": "fvqa_test", "questions": 1799}, False),
        ({"split": "fvqa", "questions": 9, "benchmarks": [{"split": "fvqa", "name": "fvqa-9"}]}, True),
        ({"questions": 9, "benchmarks": [{"split": "a"}, {"split": "b", "name": "FVQA"}]}, False),
        ({"questions": 9, "benchmarks": [{"split": "mmsearch", "size": 9}]}, True),
        ({"questions": 9, "benchmarks": [{"split": "mmsearch", "size": 10}]}, False),
        ({"questions": 9, "benchmarks": [{"split": "own", "size": 240}]}, True),
    ],
)
def test_a_part_of_a_public_benchmark_has_a_name_of_its_own(settings, valid):
    (rule,) = [each for each in rules.RULES["Evaluate"] if each.path == ".questions"]
    assert rule.check(EvaluateSettings(**settings)) == valid
