"""Everything that the operator creates on a cluster, by case, and the golden files that hold it.

    .venv/bin/python tests/support/operator_golden.py      regenerates tests/operator/golden/*.yaml

The files show a reader what runs on a cluster; a change of them changes every installation.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from gog import catalog
from gog import spec as settings
from gog_operator.api import names, objects
from gog_operator.build import config, inference, store_jobs, volcano
from gog_operator.build import settings as files
from gog_operator.build.platform import Platform

FOLDER = Path(__file__).parents[1] / "operator" / "golden"
PLATFORM = Platform(
    trainer_image="registry.example/gog-trainer:1",
    tools_image="registry.example/gog-tools:1",
    vllm_image="registry.example/vllm:1",
)
FULL = dataclasses.replace(
    PLATFORM, trusted_ca="company-ca", env={"HTTPS_PROXY": "http://proxy:3128"}, admin_key=b"k" * 32, user=None
)
"""An installation that uses every setting."""
STORE = {"uri": "s3://runs/world", "secretName": "s3", "endpointUrl": "http://s3.example:7070", "pathStyle": True}
DATA = settings.DataSpec(uri="s3://runs/world")
PLACED = {
    "queue": "research",
    "priorityClassName": "high",
    "nodeSelector": {"accelerator": "h200"},
    "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
}
GPUS = {"requests": {"nvidia.com/gpu": "1", "memory": "64Gi"}, "limits": {"nvidia.com/gpu": "1"}}

PATCH: dict[str, Any] = {
    "targets": ["stages", "servers", "storeJobs"],
    "env": [{"name": "FI_PROVIDER", "value": "efa"}, {"name": "OMP_NUM_THREADS", "value": "8"}],
    "envFrom": [{"configMapRef": {"name": "nccl"}}],
    "volumes": [
        {"name": "models", "persistentVolumeClaim": {"claimName": "models", "readOnly": True}},
        {"name": "qwen", "image": {"reference": "registry.example/qwen@sha256:0"}},
    ],
    "volumeMounts": [
        {"name": "models", "mountPath": "/models", "readOnly": True},
        {"name": "qwen", "mountPath": "/work/qwen", "readOnly": True},
    ],
    "imagePullSecrets": [{"name": "registry"}],
    "labels": {"team": "vision"},
    "annotations": {"cluster-autoscaler.kubernetes.io/safe-to-evict": "true"},
    "affinity": {
        "podAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": [
                {"topologyKey": "topology.kubernetes.io/zone", "labelSelector": {"matchLabels": {"team": "vision"}}}
            ]
        }
    },
    "topologySpreadConstraints": [
        {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway"}
    ],
    "tolerations": [{"key": "efa", "operator": "Exists"}],
    "nodeSelector": {"pool": "h100"},
    "runtimeClassName": "nvidia",
    "priorityClassName": "urgent",
    "terminationGracePeriodSeconds": 120,
    "resourceClaims": [{"name": "nic", "resourceClaimTemplateName": "roce", "request": "one"}],
    "securityContext": {"runAsUser": 2000, "supplementalGroups": [7]},
    "resources": {"vpc.amazonaws.com/efa": 4, "hugepages-2Mi": "1Gi"},
}
"""Every field that a patch of pods can have."""

Document = dict[str, Any]


def thing(kind: str, name: str, spec: Document, **metadata: Any) -> Any:
    head = {"name": name, "namespace": "research", "uid": f"uid-of-{name}", **metadata}
    body = {"apiVersion": "gog.dev/v1alpha1", "kind": kind, "metadata": head, "spec": spec}
    return objects.KINDS[kind].model_validate(body)


def stage(kind: str = "GRPOStage", attempt: int = 1, name: str = "world-grpo", **spec: Any) -> objects.Stage:
    body = {"model": {"base": "tiny"}, "data": {"world": {}}, "store": STORE, "run": "world", **spec}
    made: objects.Stage = thing(kind, name, body, labels={"gog.dev/run": "world"})
    return made.model_copy(update={"status": made.status.model_copy(update={"attempt": attempt})})


def tool_server(role: str, name: str = "", **spec: Any) -> objects.ToolServer:
    body = {"role": role, "store": STORE, **spec}
    made: objects.ToolServer = thing(
        "ToolServer", name or f"world-{catalog.SERVER_BY_NAME[role].command}", body, labels={"gog.dev/run": "world"}
    )
    return made


def run() -> objects.GoGRun:
    spec = {"model": {"base": "tiny"}, "data": {"world": {}}, "store": STORE}
    made: objects.GoGRun = thing("GoGRun", "world", spec)
    return made


def job(platform: Platform = PLATFORM, **spec: Any) -> list[Document]:
    made = stage(**spec)
    urls = {"judge": "http://world-judge-predictor.research.svc.cluster.local"}
    body = config.render(made, data=DATA, endpoints=urls, workdir="/work")
    text = yaml.safe_dump(body, sort_keys=False)
    return [files.configmap(made.job_name, made, {"config.yaml": text}), volcano.job(made, platform)]


def server(role: str, **spec: Any) -> list[Document]:
    return [inference.service(tool_server(role, **spec), PLATFORM, DATA)]


def policy(platform: Platform = PLATFORM, **spec: Any) -> list[Document]:
    made = tool_server("policy", base="tiny", version="grpo/120", **spec)
    return [inference.service(made, platform, None), inference.headless(made), inference.version_file(made, platform)]


def vllm(role: str = "policy", **spec: Any) -> list[Document]:
    made = tool_server(role, runtime="vllm", **spec)
    return [inference.service(made, PLATFORM, None), inference.headless(made)]


def store_job(owner: Any, name: str, command: Any, body: Document, **more: Any) -> list[Document]:
    store = settings.StoreSpec.model_validate(STORE)
    return list(store_jobs.job(name, owner, command, {"store": STORE, **body}, store, PLATFORM, **more))


def check() -> list[Document]:
    target = {"uri": "s3://released/world", "secretName": "released"}
    body = {"keys": ["grpo"], "verify": True, "promoteTo": target, "retention": {"keepLast": 3}}
    made = stage()
    return store_job(made, f"{made.job_name}-check", "check", body, also=settings.StoreSpec.model_validate(target))


CASES: dict[str, Callable[[], list[Document]]] = {
    "stage-one-pod": lambda: job(kind="SFTStage", name="world-sft"),
    "stage-two-pods": lambda: job(attempt=2, workers={"replicas": 2, "cpu": "1", "memory": "3Gi"}),
    "stage-gpus": lambda: job(workers={"replicas": 2, "gpus": 8, "cpu": "64", "memory": "512Gi"}),
    "stage-placed": lambda: job(
        scheduling=PLACED,
        serviceAccountName="trainer",
        endpointSecrets={"judge": "judge-key", "imageSearch": "lens-key"},
        image="registry.example/mine:2",
        store={"uri": "s3://runs/world", "region": "eu-central-1"},
        workers={"processes": 2, "cpu": "500m", "sharedMemory": "2Gi"},
    ),
    "toolserver-grounding": lambda: server("grounding"),
    "toolserver-image-search": lambda: server("imageSearch", failures={"rate": 0.05}),
    "toolserver-text-search": lambda: server("textSearch", replicas=2, scheduling=PLACED, serviceAccountName="reader"),
    "toolserver-judge": lambda: server("judge", backend="mine:factory", secretName="judge-key", startupSeconds=60),
    "toolserver-policy": policy,
    "toolserver-policy-gpu": lambda: policy(resources=GPUS, scheduling=PLACED, suspend=True, maxPixels=802816),
    "toolserver-vllm": lambda: vllm(base="hf://org/model", baseSecretName="hub", dtype="bfloat16", version="grpo/120"),
    "toolserver-vllm-volume": lambda: vllm(
        base="pvc://models/qwen",
        options={"max-model-len": 8192},
        resources={"limits": {"nvidia.com/gpu": "4"}},
        replicas=2,
        maxPixels=802816,
    ),
    "toolserver-vllm-judge": lambda: vllm(
        "judge", base="hf://org/judge", model="judge-120b", secretName="judge-key", image="registry.example/own-vllm:2"
    ),
    "stage-volumes": lambda: job(
        kind="SFTStage",
        name="world-sft",
        model={"base": "hf://org/model"},
        sources={"hf://org/model": "pvc://gog-models/model-0123456789abcdef"},
        data={"uri": "oci://registry.example/pool:1#pool"},
    ),
    "stage-patched": lambda: job(FULL, pods=[PATCH], workers={"replicas": 2, "gpus": 8}),
    "toolserver-patched": lambda: policy(FULL, pods=[PATCH]),
    "store-job-check": check,
    "store-job-patched": lambda: store_job(
        run(), names.store_job("world", "data"), "data", {}, patches=(settings.PodPatch.model_validate(PATCH),)
    ),
    "store-job-data": lambda: store_job(
        run(), names.store_job("world", "data"), "data", {"world": {"train": 400, "test": 60}}
    ),
    "store-job-report": lambda: store_job(
        run(), names.store_job("world", "report"), "report", {"objects": [objects.document(run())], "events": []}
    ),
}


@functools.cache
def documents(case: str) -> list[Document]:
    return CASES[case]()


class Dumper(yaml.SafeDumper):
    """Writes the files inside a ConfigMap line by line."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _lines(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


Dumper.add_representer(str, _lines)


def text(case: str) -> str:
    return yaml.dump_all(documents(case), Dumper=Dumper, sort_keys=False, allow_unicode=True, width=120)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for each in CASES:
        (FOLDER / f"{each}.yaml").write_text(text(each), encoding="utf-8")
