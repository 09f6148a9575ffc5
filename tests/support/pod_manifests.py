"""Patches of pods as a user writes them, in the flow style of YAML: what is accepted, and what is refused."""

from __future__ import annotations

VALID = (
    *("env: [{name: HTTPS_PROXY, value: 'http://p:1'}, {name: A, valueFrom: {secretKeyRef: {name: s, key: k}}}]",),
    *("env: [{name: NODE, valueFrom: {fieldRef: {fieldPath: status.hostIP}}}]", "envFrom: [{secretRef: {name: s}}]"),
    "volumes: [{name: m, persistentVolumeClaim: {claimName: c}}], volumeMounts: [{name: m, mountPath: /models}]",
    "volumes: [{name: m, image: {reference: 'r/m@sha256:0'}}], volumeMounts: [{name: m, mountPath: /work/m}]",
    *(
        f"volumes: [{{name: m, emptyDir: {{}}}}], volumeMounts: [{{name: m, mountPath: {path}}}]"
        for path in ("/data/", "/data/.cache", "/a..b/c...", "/tmp2/")
    ),
    *("volumes: [{name: e, emptyDir: {}}]", "volumes: [{name: e, emptyDir: {medium: Memory, sizeLimit: 1Gi}}]"),
    *("imagePullSecrets: [{name: registry}]", "labels: {team: a, example.org/x: z}", "annotations: {a/b: 'c d'}"),
    "affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: "
    "[{key: gpu, operator: In, values: [h100]}]}]}}}",
    "affinity: {podAntiAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{weight: 1, podAffinityTerm: "
    "{topologyKey: kubernetes.io/hostname, labelSelector: {matchLabels: {a: b}}}}]}}",
    "topologySpreadConstraints: [{maxSkew: 1, topologyKey: zone, whenUnsatisfiable: DoNotSchedule, minDomains: 2}]",
    *("tolerations: [{operator: Exists}]", "nodeSelector: {a: b}", "runtimeClassName: nvidia", "priorityClassName: p"),
    *("terminationGracePeriodSeconds: 60", "resourceClaims: [{name: g, resourceClaimTemplateName: t}]"),
    *("securityContext: {runAsUser: 1000, fsGroup: 0}", "resources: {rdma/hca: 1, nvidia.com/mig-1g.10gb: 2}"),
    *("targets: [stages, judge, storeJobs]", "targets: []", "targets: [toolChecks], env: []", ""),
)
INVALID = (
    *("hostNetwork: true", "hostPID: true", "shareProcessNamespace: true", "serviceAccountName: a", "command: [sh]"),
    *("containers: []", "initContainers: []", "image: x", "schedulerName: s", "hostAliases: []", "nodeName: n"),
    *("volumes: [{name: h, hostPath: {path: /}}]", "volumes: [{name: v, nfs: {server: s, path: /}}]"),
    *("volumes: [{name: e}]", "volumes: [{name: e, emptyDir: {}, secret: {secretName: s}}]"),
    *("volumes: [{name: tmp, emptyDir: {}}]", "volumes: [{name: gog-x, emptyDir: {}}]"),
    *(
        f"volumes: [{{name: m, emptyDir: {{}}}}], volumeMounts: [{{name: m, mountPath: {path}}}]"
        for path in (
            *("/", "/tmp", "/work", "/etc/gog/x", "/dev/shm", "/var/run/secrets/x", "relative", "'/a:b'"),
            *("/tmp/", "//tmp", "/./work", "/data/../etc/gog-store", "/data/..", "/tmp/."),
        )
    ),
    *("volumeMounts: [{name: absent, mountPath: /m}]", "env: [{name: GOG_X, value: a}]", "env: [{name: HOME}]"),
    *("env: [{name: AWS_CA_BUNDLE, value: a}]", "env: [{name: JUDGE_GOG_API_KEY, value: a}]", "env: [{name: a-b}]"),
    *("env: [{name: RANK}]", "env: [{name: A, value: b, valueFrom: {fieldRef: {fieldPath: x}}}]"),
    *("env: [{name: A, valueFrom: {}}]", "env: [{name: A, value: 5}]", "envFrom: [{}]", "envFrom: [{prefix: a}]"),
    *("labels: {gog.dev/run: x}", "labels: {app: x}", "labels: {app.kubernetes.io/name: x}", "labels: {a: 5}"),
    *("annotations: {serving.kserve.io/stop: 'true'}", "annotations: {volcano.sh/x: z}"),
    "annotations: {container.apparmor.security.beta.kubernetes.io/trainer: unconfined}",
    *("resources: {cpu: 1}", "resources: {memory: 1Gi}", "resources: {rdma/hca: 1.5}", "resources: {rdma/hca: -1}"),
    *(
        "securityContext: {runAsUser: 0}",
        "securityContext: {privileged: true}",
        "securityContext: {runAsNonRoot: false}",
    ),
    *("securityContext: {seccompProfile: {type: Unconfined}}", "securityContext: {sysctls: []}"),
    *("terminationGracePeriodSeconds: 5", "targets: [all]", "targets: [trainer]", "targets: grpo"),
    *("resourceClaims: [{name: g}]", "resourceClaims: [{name: g, resourceClaimName: a, resourceClaimTemplateName: b}]"),
    *("affinity: {nodeAffinity: {required: {}}}", "affinity: {podAffinity: [a]}", "tolerations: [{key: k, value: 5}]"),
    "topologySpreadConstraints: [{maxSkew: 0, topologyKey: zone, whenUnsatisfiable: DoNotSchedule}]",
)
