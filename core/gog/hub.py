"""Base models of the Hugging Face Hub: `hf://org/name` or `hf://org/name@revision`.

huggingface_hub does the work: its cache folder is shared by all runs of a machine, a download that was killed is
resumed, and HF_HOME, HF_TOKEN, HF_ENDPOINT and HF_HUB_OFFLINE mean what they mean elsewhere. This module pins a revision
to its commit, chooses the files (never a pickle, never code), and decides which errors a user corrects and which a
later attempt may not see.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gog.errors import ServiceDown, UserError, is_disk_full, unwritable

PREFIX = "hf://"
FORM = r"^hf://[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*(@[A-Za-z0-9][A-Za-z0-9._/-]*)?$"
"""Valid addresses, as a regular expression of Python and of RE2 (the API server's)."""
FILES = ("*.safetensors", "*.json", "*.txt", "*.jinja")
"""What is fetched of a repository; its subfolders are not."""
COMMIT = re.compile(r"[0-9a-f]{40}")
SERVICE = "Hugging Face Hub"
PATIENCE = 10.0
"""Seconds that the Hub has to list files, for which a user waits."""


@dataclass(frozen=True)
class Address:
    """A model repository, perhaps at a revision."""

    repo: str
    """`org/name`."""
    revision: str = ""
    """Branch, tag or commit; empty for the default branch."""

    def __str__(self) -> str:
        return f"{PREFIX}{self.repo}{f'@{self.revision}' if self.revision else ''}"

    @property
    def pinned(self) -> bool:
        """Whether the revision is a commit, which always means the same files."""
        return COMMIT.fullmatch(self.revision) is not None

    def at(self, revision: str) -> Address:
        """The same repository at another revision."""
        return Address(self.repo, revision)


def parse(base: str) -> Address | None:
    """The address that a base model is named by; None for one that is elsewhere.

    Raises:
        UserError: for an address that is not of the form `hf://org/name[@revision]`.
    """
    if not base.startswith(PREFIX):
        return None
    if not re.fullmatch(FORM, base):
        raise UserError(
            "is not an address of a model", where=base, remedy="write hf://org/name or hf://org/name@revision"
        )
    repo, _, revision = base.removeprefix(PREFIX).partition("@")
    return Address(repo, revision)


def resolve(address: Address) -> Address:
    """The address with its revision pinned to a commit.

    The cache answers where the Hub cannot be reached.

    Raises:
        UserError, ServiceDown: as `fetch`.
    """
    if address.pinned:
        return address
    hub = _library(address)
    with _classified(address):
        commit = hub.HfApi().resolve_revision(address.repo, revision=address.revision or None)
    return address.at(commit.resolved)


def fetch(address: Address) -> Path:
    """The folder of a model in huggingface_hub's cache, whole; what is there already is not fetched again.

    Args:
        address: pinned to a commit

    Raises:
        UserError: no such repository or revision, no access, the disk is full, not in the cache while HF_HUB_OFFLINE is
            set, or huggingface_hub is not installed.
        ServiceDown: the Hub does not answer.
    """
    hub = _library(address)
    hub.utils.disable_progress_bars()
    with _classified(address):
        folder = hub.snapshot_download(
            address.repo, revision=address.revision, allow_patterns=list(FILES), ignore_patterns=["*/*"]
        )
    return Path(folder)


def download(address: Address, folder: Path) -> dict[str, str]:
    """Fetches a model into a folder of its own, and compares every file with the hash that the Hub states.

    A download that was interrupted continues; a file with another hash is removed, so that the next attempt fetches it.

    Args:
        address: pinned to a commit
        folder: of this model only; made if it does not exist

    Returns:
        SHA-256 of each file.

    Raises:
        UserError, ServiceDown: as `fetch`; ServiceDown also for a file that is not what the Hub states.
    """
    hub = _library(address)
    hub.utils.disable_progress_bars()
    stated = {each.rfilename: each for each in files(address)}
    with _classified(address):
        hub.snapshot_download(address.repo, revision=address.revision, local_dir=folder, allow_patterns=sorted(stated))
    return {name: _verified(folder / name, entry, address) for name, entry in stated.items()}


def files(address: Address) -> list[Any]:
    """What the Hub states of the files that would be fetched: name, size, and hashes. Raises UserError, ServiceDown."""
    hub = _library(address)
    with _classified(address):
        about = hub.HfApi().model_info(address.repo, revision=address.revision or None, files_metadata=True)
    by_name = {each.rfilename: each for each in about.siblings or ()}
    wanted = hub.utils.filter_repo_objects(list(by_name), allow_patterns=list(FILES), ignore_patterns=["*/*"])
    return [by_name[name] for name in sorted(wanted)]


def _verified(path: Path, stated: Any, address: Address) -> str:
    """SHA-256 of a file that is what the Hub states: by its SHA-256, or by git's hash of a small file."""
    sha256, git = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            sha256.update(block)
            git.update(block)
    wanted, found = (stated.lfs.sha256, sha256) if stated.lfs is not None else (stated.blob_id, git)
    if wanted and wanted != found.hexdigest():
        path.unlink()
        raise ServiceDown(SERVICE, f"{address}: {path.name} is not what the Hub states, and is fetched again")
    return sha256.hexdigest()


def listing(address: Address) -> Sequence[str]:
    """Names of the files of a model that would be fetched. Raises UserError and ServiceDown as `fetch`."""
    hub = _library(address)
    with _classified(address):
        about = hub.HfApi().model_info(address.repo, revision=address.revision or None, timeout=PATIENCE)
    names = [each.rfilename for each in about.siblings or ()]
    return sorted(hub.utils.filter_repo_objects(names, allow_patterns=list(FILES), ignore_patterns=["*/*"]))


def _library(address: Address) -> Any:
    """huggingface_hub, imported here because it takes a quarter of a second. Raises UserError if it is not installed."""
    try:
        import huggingface_hub
        import huggingface_hub.utils
    except ImportError:
        raise UserError(
            "needs huggingface_hub, which is not installed", where=str(address), remedy="pip install huggingface_hub"
        ) from None
    return huggingface_hub


@contextlib.contextmanager
def _classified(address: Address) -> Iterator[None]:
    """Turns the exceptions of huggingface_hub into UserError and ServiceDown."""
    from huggingface_hub import errors

    try:
        yield
    except UserError:
        raise
    except errors.RevisionNotFoundError:
        raise UserError(
            f"there is no revision {address.revision!r}", where=str(address), remedy="name a branch, tag or commit"
        ) from None
    except (errors.RevisionResolutionError, errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        raise _absent(error, address) from None
    except errors.HTTPError as error:
        raise _answered(error, address) from None
    except (errors.HFValidationError, errors.DisabledRepoError) as error:
        raise UserError(_first_line(error), where=str(address), remedy="name another model") from None
    except errors.XetDownloadError as error:
        raise ServiceDown(SERVICE, f"{address}: {_first_line(error)}") from error
    except OSError as error:
        raise _of_disk(error, address) from error


def _absent(error: Exception, address: Address) -> Exception:
    """Neither the cache nor the Hub has it; the cause says whether the Hub answered."""
    from huggingface_hub import constants, errors

    if constants.is_offline_mode():
        return UserError(
            "is not whole in the cache, and HF_HUB_OFFLINE is set",
            where=str(address),
            remedy="fetch it before, with `hf download`, or unset HF_HUB_OFFLINE",
        )
    cause = error.__cause__
    if isinstance(cause, errors.HfHubHTTPError):
        return _answered(cause, address)
    return ServiceDown(SERVICE, f"{address}: {_first_line(cause or error)}")


def _answered(error: Exception, address: Address) -> Exception:
    """What an HTTP error means. Without a status no answer came."""
    from huggingface_hub import errors

    status = getattr(getattr(error, "response", None), "status_code", 0)
    if isinstance(error, errors.GatedRepoError):
        return UserError(
            "access to this model must be granted by its owner",
            where=str(address),
            remedy=f"ask for it on the model's page, and set HF_TOKEN; {_ON_A_CLUSTER}",
        )
    if isinstance(error, errors.RepositoryNotFoundError) or status == 404:
        return UserError(
            "there is no such model, or it is private",
            where=str(address),
            remedy=f"correct the name, or set HF_TOKEN; {_ON_A_CLUSTER}",
        )
    if status in (401, 403):
        return UserError(
            f"the Hub refuses the token ({status})", where=str(address), remedy=f"correct HF_TOKEN; {_ON_A_CLUSTER}"
        )
    if 400 <= status < 500 and status not in (408, 425, 429):
        return UserError(f"the Hub refuses the request: {_first_line(error)}", where=str(address))
    return ServiceDown(SERVICE, f"{address}: {_first_line(error)}")


_ON_A_CLUSTER = "on a cluster, in the Secret of model.secretName"


def _of_disk(error: OSError, address: Address) -> Exception:
    """An error of the cache folder; a download whose size or hash is wrong has no number, and is fetched again."""
    from huggingface_hub import constants

    if error.errno is None and not is_disk_full(error):
        return ServiceDown(SERVICE, f"{address}: {_first_line(error)}")
    return unwritable(error, constants.HF_HUB_CACHE, remedy="name a folder that can be written in HF_HOME")


def _first_line(error: BaseException) -> str:
    """The first line of an error, of at most 200 characters."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:200]
