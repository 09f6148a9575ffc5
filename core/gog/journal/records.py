"""The bytes of a journal object: framed records and images, each with a digest. Pure.

An object is MAGIC and frames: kind (1 byte), length (4), BLAKE2b-128 of the payload (16), payload. A reader stops at the
first frame that is cut off, too long, of an unknown kind or whose digest differs, and ignores everything after it.
Payloads are JSON and pixels, never pickles.

A record's payload is a line of JSON that names the trajectory and the record it continues, then the body: a `Kept`, or
the outline of the trajectory when it has been judged.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from gog import images
from gog.errors import UserError
from gog.images import Image
from gog.trajectory import Record, Segment, StopReason, Turn

MAGIC = b"gog journal 1\n"
_FRAME = struct.Struct(">cI16s")
MAX_PAYLOAD = 1 << 27
"""Bytes of a frame at most; a longer one is taken for damage."""
RECORD, PNG, PIXELS = b"r", b"p", b"x"
"""Kinds of frames: a record; an image as a PNG; an image as width, height (4 bytes each) and its pixels."""
SMALL = 1 << 16
"""Bytes of pixels up to which an image is kept uncompressed, because compressing it costs more than its bytes."""


class Kept(Record):
    """What an episode has done since its record before."""

    number: int
    """Number of the turn, from 0. A second record of a turn replaces it: its observation has come."""
    turn: Turn
    """The turn, with its observation if that has come."""
    segments: tuple[Segment, ...] = ()
    """Segments that were appended since the record before."""
    answer_next: str = ""
    """The cap for which the observation asks the model to answer next."""
    stop: StopReason | None = None
    """Why the episode ended with this turn; None if it did not."""
    seconds: float = 0.0
    """Wall-clock time of the episode so far."""

    def sampled_from(self, weights: Mapping[int, str]) -> Kept:
        """The record with the digest of the weights that sampled its turn. weights: digests by version."""
        segments = (
            each.model_copy(update={"weights": weights[each.version]})
            if each.source == "model" and each.version in weights
            else each
            for each in self.segments
        )
        return self.model_copy(update={"segments": tuple(segments)}) if weights else self


@dataclass(frozen=True)
class Envelope:
    """The first line of a record."""

    question: str
    """Id of the question."""
    sample: int
    """Number among the samples of the question, from 0."""
    after: str = ""
    """Digest of the record that this one continues, in hex; empty for the first one of a trajectory."""
    ended: bool = False
    """Whether the body is the outline of the judged trajectory."""


@dataclass(frozen=True)
class Frame:
    """A frame as it was read, intact."""

    kind: bytes
    """RECORD, PNG or PIXELS."""
    digest: str
    """Of its payload, in hex."""
    payload: bytes
    """Its content."""


def frame(kind: bytes, payload: bytes) -> tuple[bytes, str]:
    """The bytes of a frame, and the digest of its payload."""
    digest = hashlib.blake2b(payload, digest_size=16)
    return _FRAME.pack(kind, len(payload), digest.digest()) + payload, digest.hexdigest()


def frames(data: bytes) -> tuple[list[Frame], bool]:
    """The frames of an object up to the first that is damaged; whether the object is intact to its end."""
    if not data.startswith(MAGIC):
        return [], False
    found: list[Frame] = []
    at = len(MAGIC)
    while at < len(data):
        if len(data) - at < _FRAME.size:
            return found, False
        kind, length, digest = _FRAME.unpack_from(data, at)
        at += _FRAME.size
        payload = data[at : at + length]
        whole = kind in (RECORD, PNG, PIXELS) and length <= MAX_PAYLOAD and len(payload) == length
        if not whole or hashlib.blake2b(payload, digest_size=16).digest() != digest:
            return found, False
        found.append(Frame(kind, digest.hex(), payload))
        at += length
    return found, True


def record(envelope: Envelope, body: str) -> bytes:
    """The payload of a record."""
    return b"\n".join((json.dumps(envelope.__dict__).encode(), body.encode()))


def read_record(payload: bytes) -> tuple[Envelope, bytes]:
    """Envelope and body of a record. Raises ValueError for anything else."""
    first, _, body = payload.partition(b"\n")
    try:
        envelope = Envelope(**json.loads(first))
    except (TypeError, RecursionError) as error:
        raise ValueError(f"not a record: {error}") from None
    right = (isinstance(envelope.question, str), isinstance(envelope.sample, int), isinstance(envelope.after, str))
    if not all(right):
        raise ValueError("not a record: a field has another type")
    return envelope, body


def image_frame(image: Image) -> bytes:
    """The frame of an image."""
    pixels = image.pixels
    if pixels.nbytes > SMALL:
        return frame(PNG, image.png)[0]
    size = struct.pack(">II", image.width, image.height)
    return frame(PIXELS, size + np.ascontiguousarray(pixels).tobytes())[0]


def read_image(found: Frame) -> Image | None:
    """The image of a frame; None if it is not one that can be used."""
    if found.kind == PNG:
        try:
            return images.decode(found.payload)
        except UserError:
            return None
    if found.kind != PIXELS or len(found.payload) < 8:
        return None
    width, height = struct.unpack_from(">II", found.payload)
    if not width * height or len(found.payload) != 8 + 3 * width * height:
        return None
    return Image(np.frombuffer(found.payload, np.uint8, offset=8).reshape(height, width, 3))


def joined(parts: Iterable[bytes]) -> bytes:
    """The bytes of an object of these frames."""
    return MAGIC + b"".join(parts)
