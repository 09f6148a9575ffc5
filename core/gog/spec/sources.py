"""The base model, the dataset, the store: what a run reads and where it writes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from gog import families, mounts
from gog.spec.base import PLAIN_URL, KubeName, Spec, Text

if TYPE_CHECKING:
    Preset = str
else:
    Preset = Literal[families.PRESETS]


@dataclass(frozen=True)
class PixelBounds:
    """Bounds of the size to which images are resized; they take precedence over the base model's own."""

    min_pixels: int | None = None
    """Fewest pixels of a resized image; None: as the base model's image processor has it."""
    max_pixels: int | None = None
    """Most pixels of a resized image; None: as the base model's image processor has it, but at most 1,003,520."""


class ModelSpec(Spec):
    """The base model, for which LoRA adapters are trained."""

    base: str = Field(
        min_length=1,
        max_length=1024,
        description="`tiny` (shipped with gog), a folder or s3:// prefix with a model in Hugging Face format, "
        "hf://org/name[@revision] of the Hugging Face Hub, or a volume on a cluster: pvc://claim/folder, "
        "oci://registry/repository:tag[@digest][#folder]. On a cluster a folder is one of the trainer image. Without a "
        "revision the default branch; either is pinned to a commit, which the first checkpoint records.",
    )
    secret_name: KubeName | None = Field(
        None,
        description="Secret in the run's namespace with HF_TOKEN, for an hf:// base of a private or gated repository. "
        "Default: none; on one machine HF_TOKEN of the environment.",
    )
    family: Preset | None = Field(
        None,
        description="Preset of recipe settings for what the manifest leaves out. "
        "Default: tiny for base tiny, else by the model_type in the base's config.json. Where that cannot be read (a base "
        "in a store, or in another image), by a preset's name in the base's name, else qwen2.5-vl.",
    )
    dtype: Literal["float32", "bfloat16"] = Field("float32", description="Data type of the weights during training.")

    max_pixels: int | None = Field(
        None,
        ge=784,
        le=50_000_000,
        description="Most pixels of an image that the model sees; a larger one is scaled down. A token of Qwen2.5-VL has "
        "784 pixels, one of Qwen3-VL 1,024. Default: that of the base's image processor, but at most 1,003,520 [peer: "
        "Qwen's recommended range ends there], because published settings allow 16,000 tokens for one image.",
    )
    min_pixels: int | None = Field(
        None,
        ge=784,
        le=50_000_000,
        description="Fewest pixels of an image that the model sees; a smaller one is scaled up. "
        "Default: that of the base's image processor.",
    )

    @model_validator(mode="after")
    def _check_pixels(self) -> Self:
        if self.min_pixels and self.max_pixels and self.min_pixels > self.max_pixels:
            raise ValueError("minPixels must not be above maxPixels")
        return self

    @property
    def pixels(self) -> PixelBounds:
        """Bounds of an image's size."""
        return PixelBounds(self.min_pixels, self.max_pixels)

    @property
    def preset(self) -> str:
        """Name of the preset of recipe settings."""
        return self.family or ("tiny" if self.base == "tiny" else families.preset_of(self.base))

    @property
    def has_experts(self) -> bool:
        """Whether the model has experts, as far as its preset says."""
        return families.has_experts(self.preset)

    @property
    def style(self) -> Literal["full", "terse"]:
        """Of prompts and observations (gog.prompts): the tiny model knows a few hundred words only."""
        return "terse" if self.preset == "tiny" else "full"


class WorldSpec(Spec):
    """The embedded world: images, questions, an image index and a text corpus, generated from a seed."""

    seed: int = Field(7, ge=0, description="Seed of everything in the world.")
    train: int = Field(3200, ge=1, le=1_000_000, description="Number of training questions.")
    test: int = Field(
        600,
        ge=1,
        le=1_000_000,
        description="Number of held-out questions, about entities that never occur in training.",
    )
    difficulty: Literal["standard", "hard"] = Field(
        "standard",
        description="standard: images of one to four things; English questions of up to two searches and a choice. hard: up to "
        "six look-alikes, smaller and partly hidden ones, two-step questions, two questions in five in Chinese, and pages with "
        "misleading facts, so that trained policies stay below the ceiling [ours].",
    )


class DataSpec(Spec):
    """The dataset: exactly one of world, path, uri."""

    world: WorldSpec | None = Field(None, description="Generate the embedded world.")
    path: str | None = Field(
        None,
        max_length=1024,
        description="A dataset on this machine: a folder, or a file in another format. Not on a cluster, whose pods do "
        "not have it.",
    )
    uri: str | None = Field(
        None,
        pattern=r"^(file|s3|hf|pvc|oci)://",
        max_length=1024,
        description="A dataset in a store: s3://bucket/prefix, as `gog move push` publishes it, or file:///folder. It is "
        "read with the options of the run's store (endpointUrl, secretName and so on). Or a dataset of the Hugging Face "
        "Hub: hf://datasets/org/name[@revision][/folder]; without a revision the default branch, and either is pinned to a "
        "commit, which the first checkpoint records. On a cluster also a folder of a volume: pvc://claim/folder, "
        "oci://registry/repository:tag[@digest][#folder].",
    )
    secret_name: KubeName | None = Field(
        None,
        description="Secret in the run's namespace with HF_TOKEN, for an hf:// dataset of a private or gated repository. "
        "Default: none; on one machine HF_TOKEN of the environment.",
    )

    format: str | None = Field(
        None,
        max_length=256,
        description="Format of the dataset at path, at hf:// or in a volume, as a name (`gog-jsonl`) or `module:factory` of an "
        "installed reader. Default: recognised by content. Datasets in a store always have gog's own.",
    )

    @model_validator(mode="after")
    def _exactly_one(self) -> DataSpec:
        given = [name for name in ("world", "path", "uri") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of world, path, uri (given: {', '.join(given) or 'none'})")
        as_published = self.uri is not None and self.uri.startswith(("hf://", "pvc://", "oci://"))
        if self.format is not None and self.path is None and not as_published:
            raise ValueError("format is of the dataset at path, at hf://, or in a volume: leave it out")
        return self


class ModelCacheSpec(Spec):
    """A volume in which models and datasets are fetched once, for every pod of every run that names it."""

    claim_name: KubeName = Field(
        description="PersistentVolumeClaim in the run's namespace, with access mode ReadWriteMany where a run has several "
        "nodes. A job fills it before the first stage; stages and servers mount it read-only."
    )


class FetchedSources(Spec):
    """Where sources lie that were fetched before."""

    sources: dict[Text, Annotated[str, Field(pattern=mounts.PVC_FORM, max_length=1024)]] = Field(
        default_factory=dict,
        max_length=8,
        description="Volume in which a model or a dataset was fetched before, `pvc://claim/folder`, by its address at hf:// or "
        "s3://; a run with modelCache sets it. Default: the pods fetch it.",
    )


class StoreSpec(Spec):
    """A checkpoint store. Credentials are never part of it: on a cluster they come from the Secret or from the service
    account of the pods, elsewhere from the environment."""

    uri: str = Field(
        pattern=r"^(file|s3)://",
        max_length=1024,
        description="`s3://bucket/prefix`, or `file:///folder` on one machine.",
    )
    secret_name: KubeName | None = Field(
        None,
        description="Secret in the run's namespace with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, optionally "
        "ca.crt. Default: the credentials of the pods' service account.",
    )
    reader_secret_name: KubeName | None = Field(
        None,
        description="Secret of the same form with keys that may only read, for the servers of tools and of the policy. "
        "Default: secretName.",
    )
    endpoint_url: str | None = Field(
        None, pattern=PLAIN_URL, max_length=1024, description="URL of the S3 server. Default: Amazon S3."
    )
    region: str | None = Field(
        None, max_length=64, description="Region of the bucket. Default: that of the environment."
    )
    path_style: bool = Field(
        False,
        description="Put the bucket into the path instead of the host name, as most servers except Amazon's require.",
    )
    ca_bundle: str | None = Field(
        None,
        max_length=1024,
        description="PEM file of the certificate authority to trust. Default on a cluster: ca.crt of the Secret.",
    )
    kms_key_id: str | None = Field(
        None, max_length=2048, description="Key with which the server encrypts objects (SSE-KMS). Default: none."
    )


class RetentionSpec(Spec):
    """Which checkpoints of a stage are kept. The newest, tagged ones and inputs of other checkpoints always are."""

    keep_last: int = Field(3, ge=1, le=10_000, description="Number of newest checkpoints to keep.")
    keep_best: int = Field(0, ge=0, le=10_000, description="Number of best checkpoints by `metric` to keep besides.")
    metric: str = Field(
        "reward_last", max_length=64, description="Key in the checkpoint's metadata; larger values are better."
    )
    grace_seconds: int = Field(
        86_400,
        ge=0,
        description="Seconds; younger blobs are never deleted, because a checkpoint that is being written may refer to "
        "them, nor are journals of episodes that a stage appended to since.",
    )
