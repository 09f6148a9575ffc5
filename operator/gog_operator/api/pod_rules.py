"""Rules about the patches of pods: one source each, no name that gog uses, and nothing that has a field of its own."""

from __future__ import annotations

import re
from typing import Any

from gog.spec import pod_patches, pod_volumes
from gog_operator.api.rule import FORBIDDEN, Rule, has

Names = tuple[str, ...]


def _one_of(fields: dict[str, str], message: str) -> Rule:
    """Exactly one field is given. fields: their Python names by those of the manifest."""
    given = ", ".join(f"has(self.{alias})" for alias in fields)
    return Rule(
        f"[{given}].filter(given, given).size() == 1",
        message,
        check=lambda node: sum(has(node, name) for name in fields.values()) == 1,
    )


def _no_key(field: str, alias: str, message: str, *, prefixes: Names = (), words: Names = ()) -> Rule:
    """No key of a mapping begins with a prefix or is a word. Each prefix is a term of its own: CEL takes a loop over them
    for an expensive one, because keys have no bound."""
    terms = [f"key.startsWith('{each}')" for each in prefixes] + [f"key == '{each}'" for each in words]
    return Rule(
        f"!has(self.{alias}) || !self.{alias}.exists(key, {' || '.join(terms)})",
        message,
        f".{alias}",
        FORBIDDEN,
        check=lambda node: not any(key.startswith(prefixes) or key in words for key in getattr(node, field)),
    )


def _mounts_own_volumes(patch: Any) -> bool:
    names = {volume.name for volume in patch.volumes}
    return all(mount.name in names for mount in patch.volume_mounts)


def _is_reserved_path(path: str) -> bool:
    return path in _FOLDERS or path.startswith(pod_volumes.RESERVED_BELOW)


def _is_free_env(variable: Any) -> bool:
    return re.search(pod_patches.RESERVED_ENV, variable.name) is None


_RESERVED = (
    f"app and keys below {', '.join(pod_patches.RESERVED_KEYS[:3])} and such belong to gog and other controllers: use a "
    "prefix of your own, such as example.org/team"
)
_FOLDERS = (*pod_volumes.RESERVED_PATHS, *(f"{each}/" for each in pod_volumes.RESERVED_PATHS if each != "/"))
_PATHS = " || ".join(
    [f"self.mountPath == '{each}'" for each in _FOLDERS]
    + [f"self.mountPath.startsWith('{each}')" for each in pod_volumes.RESERVED_BELOW]
)

RULES: dict[str, tuple[Rule, ...]] = {
    "EnvVar": (
        Rule(
            f"!self.name.matches('{pod_patches.RESERVED_ENV}')",
            "is set by gog, Volcano or torchrun: choose another name",
            ".name",
            FORBIDDEN,
            check=_is_free_env,
        ),
        Rule(
            "!has(self.value) || !has(self.valueFrom)",
            "has a value and a source: remove value or valueFrom",
            ".value",
            FORBIDDEN,
            check=lambda variable: not (has(variable, "value") and has(variable, "value_from")),
        ),
    ),
    "EnvSource": (
        _one_of(
            {"secretKeyRef": "secret_key_ref", "configMapKeyRef": "config_map_key_ref", "fieldRef": "field_ref"},
            "give exactly one of secretKeyRef, configMapKeyRef, fieldRef",
        ),
    ),
    "EnvFrom": (
        _one_of(
            {"secretRef": "secret_ref", "configMapRef": "config_map_ref"},
            "give exactly one of secretRef and configMapRef",
        ),
    ),
    "ResourceClaim": (
        _one_of(
            {
                "resourceClaimName": "resource_claim_name",
                "resourceClaimTemplateName": "resource_claim_template_name",
            },
            "give exactly one of resourceClaimName and resourceClaimTemplateName",
        ),
    ),
    "PodVolume": (
        _one_of(
            {
                "secret": "secret",
                "configMap": "config_map",
                "persistentVolumeClaim": "persistent_volume_claim",
                "emptyDir": "empty_dir",
                "image": "image",
            },
            "give exactly one of secret, configMap, persistentVolumeClaim, emptyDir, image",
        ),
        Rule(
            f"!(self.name in {list(pod_volumes.RESERVED_VOLUMES)}) && !self.name.startsWith('gog-') && !self.name.startsWith('source-')",
            "is the name of a volume of gog: choose another name",
            ".name",
            FORBIDDEN,
            check=lambda volume: (
                volume.name not in pod_volumes.RESERVED_VOLUMES and not volume.name.startswith(("gog-", "source-"))
            ),
        ),
    ),
    "VolumeMount": (
        Rule(
            f"!self.mountPath.matches('{pod_volumes.NOT_PLAIN}')",
            "should be the plain form of the path: without //, and without . and .. as folders",
            ".mountPath",
            check=lambda mount: re.search(pod_volumes.NOT_PLAIN, mount.mount_path) is None,
        ),
        Rule(
            f"!({_PATHS})",
            "is a folder of gog or of the system: mount it elsewhere, such as /data",
            ".mountPath",
            FORBIDDEN,
            check=lambda mount: not _is_reserved_path(mount.mount_path),
        ),
    ),
    "PodPatch": (
        Rule(
            "!has(self.volumeMounts) || self.volumeMounts.all(mount, "
            "has(self.volumes) && self.volumes.exists(volume, volume.name == mount.name))",
            "mounts a volume that the patch does not have: add it to volumes",
            ".volumeMounts",
            check=_mounts_own_volumes,
        ),
        _no_key(
            "labels",
            "labels",
            _RESERVED,
            prefixes=pod_patches.RESERVED_KEYS,
            words=pod_patches.RESERVED_LABELS,
        ),
        _no_key(
            "annotations",
            "annotations",
            _RESERVED,
            prefixes=pod_patches.RESERVED_KEYS,
        ),
        _no_key(
            "resources",
            "resources",
            "cpu and memory have fields of their own: workers of a stage, resources of a server",
            words=pod_patches.SIZED,
        ),
    ),
}
