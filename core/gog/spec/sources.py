"""The base model, the questions, the store: where a run takes from and puts to."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from gog.spec.base import Spec


class ModelSpec(Spec):
    """The base model, which LoRA adapters are trained for."""

    base: str = Field(
        min_length=1,
        max_length=1024,
        description="`tiny` (shipped with gog), or a folder or s3:// prefix in Hugging Face form. On a cluster a folder "
        "is one of the trainer image.",
    )
    family: Literal["tiny", "qwen2.5-vl"] | None = Field(
        None,
        description="Which preset of recipe settings applies to what the manifest leaves out. "
        "Default: tiny for base tiny, else qwen2.5-vl.",
    )
    dtype: Literal["float32", "bfloat16"] = Field("float32", description="Type of the weights while training.")

    @property
    def preset(self) -> str:
        return self.family or ("tiny" if self.base == "tiny" else "qwen2.5-vl")

    @property
    def style(self) -> Literal["full", "terse"]:
        """Of prompts and observations (gog.prompts): the tiny model knows a few hundred words only."""
        return "terse" if self.preset == "tiny" else "full"


class WorldSpec(Spec):
    """The embedded world: images, questions, an image index and a corpus, made from a seed."""

    seed: int = Field(7, ge=0, description="Everything in the world follows from it.")
    train: int = Field(3200, ge=1, le=1_000_000, description="Questions to train on.")
    test: int = Field(
        600, ge=1, le=1_000_000, description="Held-out questions, about entities never shown in training."
    )


class DataSpec(Spec):
    """Where the questions are: exactly one of world, path, uri."""

    world: WorldSpec | None = Field(None, description="Make the embedded world.")
    path: str | None = Field(
        None,
        max_length=1024,
        description="A dataset on this machine: a folder, or a file in another format. Not on a cluster: its pods have "
        "no such folder.",
    )
    uri: str | None = Field(
        None,
        pattern=r"^(file|s3)://",
        max_length=1024,
        description="A dataset in a store: s3://bucket/prefix, as `gog move push` publishes it, or file:///folder. It is "
        "reached as the run's store is (endpointUrl, secretName and so on).",
    )

    format: str | None = Field(
        None,
        max_length=256,
        description="Format of the dataset at path, as a name (`gog-jsonl`) or `module:factory` of an installed reader. "
        "Default: recognised by content. Datasets in a store always have gog's own.",
    )

    @model_validator(mode="after")
    def _exactly_one(self) -> DataSpec:
        given = [name for name in ("world", "path", "uri") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of world, path, uri (given: {', '.join(given) or 'none'})")
        if self.format is not None and self.path is None:
            raise ValueError("format is of the dataset at path: leave it out")
        return self


class StoreSpec(Spec):
    """A checkpoint store. Credentials are never written here: on a cluster they come from the Secret or from the
    service account of the pods, elsewhere from the environment."""

    uri: str = Field(
        pattern=r"^(file|s3)://",
        max_length=1024,
        description="s3://bucket/prefix, or file:///folder on one machine.",
    )
    secret_name: str | None = Field(
        None,
        max_length=253,
        description="Secret in the run's namespace with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and perhaps ca.crt. "
        "Default: whatever the pods' service account may do.",
    )
    endpoint_url: str | None = Field(
        None, pattern=r"^https?://", max_length=1024, description="Address of an S3 server. Default: Amazon's."
    )
    region: str | None = Field(None, max_length=64, description="Region of the bucket. Default: the environment's.")
    path_style: bool = Field(
        False, description="Write the bucket into the path, not the host name, as most servers but Amazon's want."
    )
    ca_bundle: str | None = Field(
        None,
        max_length=1024,
        description="PEM file of the authority to trust. Default on a cluster: ca.crt of the Secret.",
    )
    kms_key_id: str | None = Field(
        None, max_length=2048, description="Key that the server encrypts objects with (SSE-KMS). Default: none."
    )


class RetentionSpec(Spec):
    """Which checkpoints of a stage stay. The newest, tagged ones and what others were made from always do."""

    keep_last: int = Field(3, ge=1, le=10_000, description="The newest so many.")
    keep_best: int = Field(0, ge=0, le=10_000, description="Besides, so many of the best by `metric`.")
    metric: str = Field("reward_last", max_length=64, description="Key of the checkpoint's meta; larger is better.")
    grace_seconds: int = Field(
        86_400, ge=0, description="Seconds; younger blobs are never swept: a publication may be under way."
    )
