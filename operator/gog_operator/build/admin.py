"""The token with which the operator loads adapters into one policy server, and what the server knows of it.

The token is derived from the operator's key and the server's identity, so that it is stored nowhere, and one that leaks
from a namespace opens nothing in another. The server's pods hold its digest only, in a ConfigMap that any reader may see.
"""

from __future__ import annotations

from gog import admin_tokens
from gog_operator.api.objects import ToolServer
from gog_operator.build.platform import Platform

FILE = "admin"
"""Key of the digest in the ConfigMap of a policy server, and its file in the pods."""


def token(tool_server: ToolServer, platform: Platform) -> str:
    """The token of a policy server; empty where the installation has no key."""
    if not platform.admin_key:
        return ""
    metadata = tool_server.metadata
    return admin_tokens.token(platform.admin_key, f"{metadata.namespace}/{metadata.name}/{metadata.uid}")


def files(tool_server: ToolServer, platform: Platform) -> dict[str, str]:
    """What the ConfigMap of a policy server has of its token."""
    found = token(tool_server, platform)
    return {FILE: admin_tokens.digest(found)} if found else {}
