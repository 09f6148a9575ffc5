"""Rules of the stages that make demonstrations and that learn from them (gog_operator.api.rules)."""

from __future__ import annotations

from gog_operator.api.rule import REQUIRED, Rule, has

READ = (
    Rule(
        "!has(self.demonstrations) || self.demonstrations == 'sample' || self.demonstrations.startsWith('/')",
        "should be sample, or an absolute path inside the trainer image: a pod has no file of your machine",
        ".demonstrations",
        check=lambda sft: (
            not has(sft, "demonstrations") or sft.demonstrations == "sample" or sft.demonstrations.startswith("/")
        ),
        cluster=True,
    ),
    Rule(
        "!has(self.reviews) || self.reviews.startsWith('/')",
        "should be an absolute path inside the trainer image: a pod has no file of your machine",
        ".reviews",
        check=lambda sft: not has(sft, "reviews") or sft.reviews.startswith("/"),
        cluster=True,
    ),
)
MADE = (
    Rule(
        "!has(self.teacher) || self.teacher != 'endpoint' || has(self.endpoint)",
        "teacher endpoint needs endpoint: {url: …, model: …}",
        ".endpoint",
        REQUIRED,
    ),
    Rule(
        "!has(self.attempts) || self.attempts == 1 || (has(self.teacher) && self.teacher == 'endpoint')",
        "is of the teacher endpoint, the scripted one plays a question the same way each time: remove it, or set teacher to "
        "endpoint",
        ".attempts",
    ),
    Rule(
        "!has(self.against) || self.against.all(each, each.startsWith('s3://'))",
        "should start with s3://, because a pod has no folder of your machine: publish each dataset with gog move push",
        ".against",
        check=lambda curate: all(each.startswith("s3://") for each in curate.against),
        cluster=True,
    ),
)
