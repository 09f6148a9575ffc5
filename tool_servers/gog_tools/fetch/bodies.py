"""Decoding of response bodies with a bound on the decoded size.

A megabyte of gzip can expand to a gigabyte. A body is decoded as it arrives, in pieces no larger than what is still
allowed, and refused as soon as it is longer; what it would have become is never in memory.
"""

from __future__ import annotations

import zlib

ACCEPTED = "gzip, deflate"
"""Value of Accept-Encoding: what `Decoder` reads."""
_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS


class TooLarge(Exception):
    """A body is longer than allowed."""


class Undecodable(Exception):
    """A body is not in the encoding that its response names, or in one that was not asked for."""


class Decoder:
    """Decodes one body."""

    def __init__(self, encoding: str, limit: int) -> None:
        """Creates a decoder.

        Args:
            encoding: value of Content-Encoding; empty for none
            limit: most decoded bytes

        Raises:
            Undecodable: an encoding that was not asked for, or several on top of each other.
        """
        name = encoding.strip().lower()
        if name not in ("", "identity", "gzip", "x-gzip", "deflate"):
            raise Undecodable(f"content encoding {name[:40]!r}")
        self._compressed = name not in ("", "identity")
        self._raw = name == "deflate"
        self._stream = zlib.decompressobj(_GZIP_OR_ZLIB)
        self._begun = False
        self._left = self._limit = limit
        self._raw_left = 2 * limit + 1024

    def feed(self, data: bytes) -> bytes:
        """The decoded bytes of the next piece. Raises TooLarge, Undecodable."""
        if not self._compressed:
            return self._count(data)
        self._raw_left -= len(data)
        if self._raw_left < 0:  # an endless body of empty members never reaches the limit of decoded bytes
            raise TooLarge(f"the compressed body is longer than any that decodes to {self._limit:,} bytes")
        pieces = []
        while data:
            if self._stream.eof:  # the next member of a gzip body, or padding after the last
                if self._raw or not data.strip(b"\0"):
                    break
                self._stream = zlib.decompressobj(_GZIP_OR_ZLIB)
            pieces.append(self._count(self._decompress(data)))
            data = self._stream.unused_data or self._stream.unconsumed_tail
        return b"".join(pieces)

    def _decompress(self, data: bytes) -> bytes:
        """At most one byte more than is allowed: enough to see that the body is too long."""
        try:
            made = self._stream.decompress(data, self._left + 1)
        except zlib.error as error:
            if not (self._raw and not self._begun):
                raise Undecodable(f"the body is damaged: {error}") from None
            self._stream = zlib.decompressobj(-zlib.MAX_WBITS)  # deflate without its header, as some servers send it
            try:
                made = self._stream.decompress(data, self._left + 1)
            except zlib.error as damage:
                raise Undecodable(f"the body is damaged: {damage}") from None
        self._begun = True
        return made

    def _count(self, data: bytes) -> bytes:
        self._left -= len(data)
        if self._left < 0:
            raise TooLarge(f"the body has more than {self._limit:,} bytes")
        return data

    def finish(self) -> None:
        """Checks that a compressed body has ended. Raises Undecodable."""
        if self._compressed and self._begun and not self._stream.eof:
            raise Undecodable("the body is cut off")
