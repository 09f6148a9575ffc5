"""The options of an S3 server on a command line (--endpoint-url, --region, --path-style) as those of a store."""

from __future__ import annotations

import argparse

from pydantic import ValidationError

from gog import validation
from gog.errors import UserError
from gog.spec import StoreSpec


def given_for(given: argparse.Namespace, uri: str) -> StoreSpec:
    """The store at an address with the options of a command line. Raises UserError that names the option."""
    options = {"endpoint_url": given.endpoint_url, "region": given.region, "path_style": given.path_style}
    try:
        return StoreSpec.model_validate({"uri": uri, **options})
    except ValidationError as error:
        field, cause = validation.first_problem(error)
        remedy = "give http://host:port" if field == "endpoint_url" else ""
        where = uri if field == "uri" else f"--{field.replace('_', '-')}"
        raise UserError(cause, where=where, remedy=remedy) from None
