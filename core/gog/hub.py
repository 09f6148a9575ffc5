"""Base models and datasets of the Hugging Face Hub: `hf://org/name[@revision]`, `hf://datasets/org/name[@revision][/folder]`.

huggingface_hub does the work: its cache folder is shared by all runs of a machine, a download that was killed is
resumed, and HF_HOME, HF_TOKEN, HF_ENDPOINT and HF_HUB_OFFLINE mean what they mean elsewhere. This module pins a revision
to its commit, chooses the files (never a pickle, never code), and decides which errors a user corrects and which a
later attempt may not see. Addresses are those of huggingface_hub (`HfFileSystem`) and of `datasets`.
"""

from __future__ import annotations

import contextlib
import fnmatch
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal
from urllib.parse import quote, unquote

from gog import mounts
from gog.errors import ServiceDown, UserError, is_disk_full, unwritable

PREFIX = "hf://"
DATASETS = "hf://datasets/"
"""Beginning of the addresses of datasets."""
_REPO = "[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*"
FORM = rf"^hf://{_REPO}(@[A-Za-z0-9][A-Za-z0-9._/-]*)?$"
"""Valid addresses of models, as a regular expression of Python and of RE2 (the API server's)."""
_SPECIAL = "refs/(convert|pr)/[A-Za-z0-9][A-Za-z0-9._-]*"
"""The only revisions whose slashes are not encoded where a folder may follow."""
DATASET_FORM = (
    rf"^hf://datasets/(?P<repo>{_REPO})(@(?P<revision>{_SPECIAL}|[A-Za-z0-9][A-Za-z0-9._-]*(%2F[A-Za-z0-9._-]+)*))?"
    rf"(?P<path>(/{mounts.SEGMENT})*)$"
)
"""Valid addresses of datasets, likewise."""
FILES = ("*.safetensors", "*.json", "*.txt", "*.jinja")
"""What is fetched of a model; its subfolders are not."""
DATASET_FILES = (
    *("*.parquet", "*.pq", "*.arrow", "*.jsonl", "*.ndjson", "*.json"),
    *("*.[Pp][Nn][Gg]", "*.[Jj][Pp][Gg]", "*.[Jj][Pp][Ee][Gg]", "*.[Ww][Ee][Bb][Pp]"),
)
"""What is fetched of a dataset, from its subfolders too: the tables and images that readers of datasets take."""
_READ = ".parquet, .arrow, .jsonl, .json"
COMMIT = re.compile(r"[0-9a-f]{40}")
SERVICE = "Hugging Face Hub"
PATIENCE = 10.0
"""Seconds that the Hub has to list files, for which a user waits."""


@dataclass(frozen=True)
class Address:
    """A repository, perhaps at a revision."""

    repo: str
    """`org/name`."""
    revision: str = ""
    """Branch, tag or commit; empty for the default branch."""
    type: Literal["model", "dataset"] = "model"
    """What it holds, as huggingface_hub calls it."""
    path: str = ""
    """Folder or file of a dataset's repository; empty for all of it."""

    def __str__(self) -> str:
        if self.type == "model":
            return f"{PREFIX}{self.repo}{f'@{self.revision}' if self.revision else ''}"
        revision = self.revision if re.fullmatch(_SPECIAL, self.revision) else quote(self.revision, safe="")
        below = f"/{self.path}" if self.path else ""
        return f"{DATASETS}{self.repo}{f'@{revision}' if revision else ''}{below}"

    @property
    def pinned(self) -> bool:
        """Whether the revision is a commit, which always means the same files."""
        return COMMIT.fullmatch(self.revision) is not None

    def at(self, revision: str) -> Address:
        """The same repository at another revision."""
        return replace(self, revision=revision)


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


def parse_dataset(uri: str) -> Address | None:
    """The address that a dataset is named by; None for one that is elsewhere.

    Raises:
        UserError: for an address that is not of the form `hf://datasets/org/name[@revision][/folder]`.
    """
    if not uri.startswith(PREFIX):
        return None
    found = re.fullmatch(DATASET_FORM, uri)
    if found is None:
        remedy = "write hf://datasets/org/name[@revision][/folder], a slash of the revision as %2F"
        raise UserError("is not an address of a dataset", where=uri, remedy=remedy)
    return Address(found["repo"], unquote(found["revision"] or ""), "dataset", found["path"].strip("/"))


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
        commit = hub.HfApi().resolve_revision(address.repo, repo_type=address.type, revision=address.revision or None)
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
    return _snapshot(address)


def fetch_dataset(address: Address) -> tuple[Path, dict[str, str]]:
    """The repository of a dataset in huggingface_hub's cache, as far as the address names it, each file compared with the
    hash that the Hub states. What is there already is not fetched again.

    Args:
        address: pinned to a commit

    Returns:
        The folder of the repository, in which `address.path` lies, and the SHA-256 of each file that was fetched.

    Raises:
        UserError: as `fetch`; also where the address names no files of a dataset, or a file is named so that it would lie
            outside of the folder.
        ServiceDown: as `fetch`; also for a file that is not what the Hub states, which the next attempt fetches.
    """
    hashes = _cached(address) or stated(address)
    folder = _snapshot(address)
    return folder, _verified(folder, hashes, address)


def download(address: Address, folder: Path) -> dict[str, str]:
    """Fetches a repository into a folder of its own, and compares every file with the hash that the Hub states.

    A download that was interrupted continues; a file with another hash is removed, so that the next attempt fetches it.

    Args:
        address: pinned to a commit
        folder: of this address only; made if it does not exist

    Returns:
        SHA-256 of each file.

    Raises:
        UserError, ServiceDown: as `fetch_dataset`.
    """
    hashes = stated(address)
    _snapshot(address, local_dir=folder)
    return _verified(folder, hashes, address)


def stated(address: Address) -> dict[str, str]:
    """The hash that the Hub states of each file that would be fetched: its SHA-256, or git's of a small one; empty for none.

    Raises:
        UserError, ServiceDown: as `fetch_dataset`.
    """
    about = _about(address, files_metadata=True)
    return _chosen(address, {each.rfilename: _hash(each) for each in about.siblings or ()})


def listing(address: Address) -> Sequence[str]:
    """Names of the files that would be fetched. Raises UserError and ServiceDown as `fetch_dataset`."""
    about = _about(address, timeout=PATIENCE)
    return list(_chosen(address, {each.rfilename: "" for each in about.siblings or ()}))


def _about(address: Address, **options: Any) -> Any:
    hub = _library(address)
    with _classified(address):
        return hub.HfApi().repo_info(address.repo, repo_type=address.type, revision=address.revision or None, **options)


def _cached(address: Address) -> dict[str, str]:
    """As `stated`, from what huggingface_hub knows of a commit without a request; empty if it knows nothing."""
    hub = _library(address)
    try:
        found = hub.get_cached_repo_tree(address.repo, repo_type=address.type, revision=address.revision)
    except hub.errors.CachedRepoTreeNotFoundError:
        return {}
    return _chosen(address, {each.path: _hash(each) for each in found})


def _hash(file: Any) -> str:
    return str(file.lfs.sha256 if file.lfs is not None else file.blob_id or "")


def _patterns(address: Address) -> dict[str, list[str]]:
    """Which files of a repository are fetched, as patterns of huggingface_hub, whose * matches slashes."""
    if address.type == "model":
        return {"allow_patterns": list(FILES), "ignore_patterns": ["*/*"]}
    own = [address.path] if any(fnmatch.fnmatchcase(address.path, each) for each in DATASET_FILES) else []
    below = f"{address.path}/" if address.path else ""
    return {"allow_patterns": [*own, *(f"{below}{each}" for each in DATASET_FILES)], "ignore_patterns": []}


def _chosen(address: Address, hashes: Mapping[str, str]) -> dict[str, str]:
    """Those of a repository's files that are fetched, by name.

    Raises:
        UserError: there are none in a dataset, or one would lie outside of the folder that it is fetched into.
    """
    names = sorted(_library(address).utils.filter_repo_objects(list(hashes), **_patterns(address)))
    for name in names:
        if name.startswith("/") or "\\" in name or ".." in PurePosixPath(name).parts:
            raise UserError(f"names a file outside of its folder: {name!r}", where=str(address), remedy="do not use it")
    if not names and address.type == "dataset":
        raise UserError(
            f"there is no file of a dataset{f' in {address.path}' if address.path else ''}",
            where=str(address),
            remedy=f"name a repository or folder with files that gog reads: {_READ}",
        )
    return {name: hashes[name] for name in names}


def _snapshot(address: Address, **options: Any) -> Path:
    hub = _library(address)
    hub.utils.disable_progress_bars()
    with _classified(address):
        return Path(
            hub.snapshot_download(
                address.repo, repo_type=address.type, revision=address.revision, **_patterns(address), **options
            )
        )


def _verified(folder: Path, hashes: Mapping[str, str], address: Address) -> dict[str, str]:
    """SHA-256 of each file. Raises ServiceDown where some are not what the Hub states, which are removed before.

    Args:
        folder: of the files
        hashes: as `stated` has them
        address: for messages
    """
    found = {name: _compared(folder / name, wanted) for name, wanted in hashes.items()}
    wrong = [name for name, digest in found.items() if not digest]
    for path in (folder / name for name in wrong):
        path.resolve().unlink(missing_ok=True)  # in the cache a link leads to the content
        path.unlink(missing_ok=True)
    if wrong:
        raise ServiceDown(
            SERVICE, f"{address}: {', '.join(wrong[:3])} is not what the Hub states, and is fetched again"
        )
    return found


def _compared(path: Path, wanted: str) -> str:
    """SHA-256 of a file; empty where the file is not what the Hub states, by its SHA-256, or by git's hash if it is small."""
    sha256, git = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            sha256.update(block)
            git.update(block)
    own = sha256 if len(wanted) == sha256.digest_size * 2 else git
    return sha256.hexdigest() if wanted in ("", own.hexdigest()) else ""


def _library(address: Address) -> Any:
    """huggingface_hub, imported here because it takes a quarter of a second. Raises UserError if it is not installed."""
    try:
        import huggingface_hub
        import huggingface_hub.errors
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
        raise UserError(_first_line(error), where=str(address), remedy=f"name another {address.type}") from None
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
            f"access to this {address.type} must be granted by its owner",
            where=str(address),
            remedy=f"ask for it on the {address.type}'s page, and set HF_TOKEN; {_secret(address)}",
        )
    if isinstance(error, errors.RepositoryNotFoundError) or status == 404:
        return UserError(
            f"there is no such {address.type}, or it is private",
            where=str(address),
            remedy=f"correct the name, or set HF_TOKEN; {_secret(address)}",
        )
    if status in (401, 403):
        return UserError(
            f"the Hub refuses the token ({status})", where=str(address), remedy=f"correct HF_TOKEN; {_secret(address)}"
        )
    if 400 <= status < 500 and status not in (408, 425, 429):
        return UserError(f"the Hub refuses the request: {_first_line(error)}", where=str(address))
    return ServiceDown(SERVICE, f"{address}: {_first_line(error)}")


def _secret(address: Address) -> str:
    """Where the token comes from on a cluster."""
    return f"on a cluster, in the Secret of {'data' if address.type == 'dataset' else 'model'}.secretName"


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
