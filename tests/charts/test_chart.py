"""The chart: strict values, minimal permissions, accepted by a real API server, and runs survive its removal."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
import yaml
from support import kube

from gog import spec as settings
from gog_console import cli
from gog_operator.build import pods
from gog_operator.build.platform import Platform

CHART = kube.ROOT / "charts/gog"
MANIFESTS = kube.ROOT / "manifests"
CASES = sorted((CHART / "ci").glob("*.yaml"), key=lambda path: path.stem)
MONITORING = "--api-versions=monitoring.coreos.com/v1"


@pytest.fixture(scope="session")
def helm(tmp_path_factory):
    """Runs the real Helm. Returns its output and its messages."""
    program, home = kube.program("helm"), tmp_path_factory.mktemp("helm")
    places = {f"HELM_{name}_HOME": str(home / name.lower()) for name in ("CACHE", "CONFIG", "DATA")}

    def call(*args, server=None, fails=False):
        environment = os.environ | places | ({"KUBECONFIG": str(server.kubeconfig)} if server else {})
        command = [program, *map(str, args)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
        assert (done.returncode != 0) == fails, done.stderr
        return done.stderr if fails else done.stdout

    return call


def rendered(helm, *args) -> list[dict]:
    text = helm("template", "gog", CHART, "--namespace=gog-system", "--set=crds.install=false", MONITORING, *args)
    return [each for each in yaml.safe_load_all(text) if each]


def of_kind(documents, *kinds) -> list[dict]:
    return [each for each in documents if each["kind"] in kinds]


def operator_role(documents) -> dict:
    (role,) = [each for each in of_kind(documents, "Role", "ClusterRole") if each["metadata"]["name"] in OPERATOR_ROLES]
    return role


OPERATOR_ROLES = ("gog-operator", "gog-system-gog-operator")


def test_the_definitions_in_the_chart_are_those_of_the_manifests():
    ours = {path.name: path.read_text() for path in (CHART / "files/crds").glob("*")}
    assert ours == {path.name: path.read_text() for path in (MANIFESTS / "crds").glob("*")}, "run: make manifests"
    assert ours


@pytest.mark.apiserver
@pytest.mark.parametrize("case", CASES, ids=lambda path: path.stem)
def test_each_set_of_values_passes_helm_lint(helm, case):
    assert "0 chart(s) failed" in helm("lint", "--strict", CHART, "-f", case)


@pytest.mark.apiserver
def test_the_installation_without_helm_is_the_rendered_chart():
    now = subprocess.run([Path(__file__).parent / "install"], capture_output=True, text=True, check=True).stdout
    assert now == (MANIFESTS / "install.yaml").read_text(), "run: make manifests"


@pytest.mark.apiserver
@pytest.mark.parametrize("case", CASES, ids=lambda path: path.stem)
def test_no_role_allows_exec_or_wildcards_and_of_secrets_only_the_operator_s_own(helm, case):
    for role in of_kind(rendered(helm, "-f", case), "Role", "ClusterRole"):
        for rule in role["rules"]:
            assert "*" not in (*rule["apiGroups"], *rule["resources"], *rule["verbs"])
            assert "pods/exec" not in rule["resources"]
            if "secrets" in rule["resources"]:
                assert (role["kind"], role["metadata"]["namespace"]) == ("Role", "gog-system")
                own = (["get"], ["gog-operator-key"])
                assert (rule["verbs"], rule.get("resourceNames")) in (own, (["create"], None))


def test_without_a_way_out_no_image_comes_from_elsewhere():
    values = yaml.safe_load((CHART / "ci/air-gapped.yaml").read_text())["images"]
    given = yaml.safe_load((CHART / "values.yaml").read_text())["images"] | values
    assert given["registry"].startswith("registry.internal:5000/")
    assert given["vllm"].startswith("registry.internal:5000/"), "it is named in full"


def test_the_notes_remove_every_definition_by_its_label():
    notes = (CHART / "templates/NOTES.txt").read_text()
    assert "kubectl delete crd -l app.kubernetes.io/name=gog\n" in notes
    for file in (CHART / "files/crds").glob("*"):
        assert file.read_text().partition("spec:")[0].endswith("labels:\n    app.kubernetes.io/name: gog\n")


def test_the_lease_of_another_release_and_other_secrets_are_out_of_reach():
    """What may be created cannot be limited by name; what exists is."""
    parts = (MANIFESTS / "install.yaml").read_text().split("\n---\n")
    (role,) = (
        yaml.safe_load(each) for each in parts if "kind: Role\n" in each and "name: gog-operator-lease\n" in each
    )
    names = {"leases": ["gog-operator"], "secrets": ["gog-operator-key"]}
    for rule in role["rules"]:
        (resource,) = rule["resources"]
        assert rule["verbs"] == ["create"] or rule["resourceNames"] == names[resource]


@pytest.mark.apiserver
def test_namespaced_and_cluster_wide_roles_have_the_same_rules(helm):
    narrow, wide = rendered(helm), rendered(helm, "--set=watch.allNamespaces=true")
    assert operator_role(narrow)["kind"] == "Role" and operator_role(wide)["kind"] == "ClusterRole"
    assert operator_role(narrow)["rules"] == operator_role(wide)["rules"]


@pytest.mark.apiserver
def test_without_aggregation_definitions_and_presets_nothing_is_cluster_wide(helm):
    documents = rendered(helm, "--set=rbac.aggregate=false,presets.enabled=false")
    assert all(each["metadata"].get("namespace") == "gog-system" for each in documents)


@pytest.mark.apiserver
@pytest.mark.parametrize("case", CASES, ids=lambda path: path.stem)
def test_the_operator_accepts_the_arguments_of_the_chart(helm, case):
    (deployment,) = of_kind(rendered(helm, "-f", case), "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    given = cli.build_parser().parse_args(container["args"])
    assert given.command == "operator" and (given.all_namespaces or given.namespace)


@pytest.mark.apiserver
def test_monitoring_is_rendered_only_where_its_definitions_exist(helm):
    enabled = "--set=monitoring.podMonitor=true,monitoring.prometheusRule=true"
    assert {each["kind"] for each in of_kind(rendered(helm, enabled), "PodMonitor", "PrometheusRule")} == {
        "PodMonitor",
        "PrometheusRule",
    }
    text = helm("template", "gog", CHART, enabled)
    assert not of_kind([each for each in yaml.safe_load_all(text) if each], "PodMonitor", "PrometheusRule")


@pytest.mark.apiserver
def test_stages_wait_for_their_last_scrape_as_the_values_set_it(helm):
    (deployment,) = of_kind(rendered(helm, "--set=monitoring.lastScrapeSeconds=70"), "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    platform = Platform.from_environment({each["name"]: each["value"] for each in container["env"]})
    assert platform.linger_seconds == 70


@pytest.mark.apiserver
def test_where_the_cluster_assigns_users_no_pod_names_one(helm):
    (deployment,) = of_kind(rendered(helm, "--set=pods.user=any"), "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    assert "runAsUser" not in str(pod) and pod["securityContext"]["runAsNonRoot"]
    (container,) = pod["containers"]
    platform = Platform.from_environment({each["name"]: each["value"] for each in container["env"]})
    assert platform.user is None and pods.security(platform.user)["runAsNonRoot"]
    assert not {"runAsUser", "runAsGroup", "fsGroup"} & pods.security(platform.user).keys()


def platform_of(deployment) -> Platform:
    """The settings of pods that the operator reads of its own environment."""
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    return Platform.from_environment({each["name"]: each.get("value", "") for each in container["env"]})


@pytest.mark.apiserver
def test_a_private_authority_is_trusted_by_the_operator_and_by_every_pod_that_it_creates(helm):
    (deployment,) = of_kind(rendered(helm, "--set=trustedCA.configMap=company-ca,trustedCA.key=ca.pem"), "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    made = pods.container("x", "i", platform_of(deployment), command=[], env={})
    around = pods.pod(made, platform_of(deployment), scheduling=settings.SchedulingSpec(), service_account=None)
    for container, volumes in ((pod["containers"][0], pod["volumes"]), (made, around["volumes"])):
        env = {each["name"]: each.get("value") for each in container["env"]}
        assert {env[name] for name in pods.AUTHORITIES} == {"/etc/gog-ca/ca.crt"}
        assert {"name": "gog-ca", "mountPath": "/etc/gog-ca", "readOnly": True} in container["volumeMounts"]
        (source,) = [each["configMap"] for each in volumes if each["name"] == "gog-ca"]
        assert source == {"name": "company-ca", "items": [{"key": "ca.pem", "path": "ca.crt"}]}


@pytest.mark.apiserver
def test_without_a_private_authority_none_is_mounted(helm):
    (deployment,) = of_kind(rendered(helm), "Deployment")
    assert "gog-ca" not in str(deployment) and platform_of(deployment).trusted_ca == ""


@pytest.mark.apiserver
def test_the_environment_of_the_values_is_that_of_every_pod(helm):
    values = "--set=pods.env.HTTPS_PROXY=http://proxy:3128,pods.env.NO_PROXY=.internal"
    (deployment,) = of_kind(rendered(helm, values), "Deployment")
    made = pods.container("x", "i", platform_of(deployment), command=[], env={})
    assert {"name": "HTTPS_PROXY", "value": "http://proxy:3128"} in made["env"]


@pytest.mark.apiserver
@pytest.mark.parametrize("inject", [True, False])
def test_no_pod_has_a_sidecar_of_istio_unless_the_values_allow_it(helm, inject):
    (deployment,) = of_kind(rendered(helm, f"--set=istio.inject={str(inject).lower()}"), "Deployment")
    label = {"sidecar.istio.io/inject": "false"}
    assert (label.items() <= deployment["spec"]["template"]["metadata"]["labels"].items()) == (not inject)
    assert platform_of(deployment).pod_labels() == ({} if inject else label)


@pytest.mark.apiserver
def test_presets_need_one_verb_of_one_cluster_scoped_resource(helm):
    made = [each for each in of_kind(rendered(helm), "ClusterRole") if each["metadata"]["name"].endswith("-presets")]
    assert [each["rules"] for each in made] == [
        [{"apiGroups": ["gog.dev"], "resources": ["gogruntimes"], "verbs": ["get"]}]
    ]


@pytest.mark.apiserver
def test_of_two_replicas_one_survives_a_drain(helm):
    documents = rendered(helm, "--set=operator.replicas=2")
    (deployment,), (budget,) = of_kind(documents, "Deployment"), of_kind(documents, "PodDisruptionBudget")
    assert deployment["spec"]["replicas"] == 2 and "strategy" not in deployment["spec"]
    assert budget["spec"]["selector"] == deployment["spec"]["selector"] and budget["spec"]["minAvailable"] == 1
    assert not of_kind(rendered(helm), "PodDisruptionBudget"), "which would block every drain of a single replica"


@pytest.mark.apiserver
def test_every_image_but_that_of_vllm_is_taken_from_the_registry_of_the_values(helm):
    (deployment,) = of_kind(rendered(helm, "--set=images.registry=registry.internal:5000/gog"), "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    given = {each["name"]: each["value"] for each in container["env"] if each["name"].endswith("_IMAGE")}
    assert given.pop("GOG_VLLM_IMAGE").startswith("vllm/"), "it is named in full, because it is another project's"
    assert len(given) == 3 and all(each.startswith("registry.internal:5000/gog/gog-") for each in given.values())
    assert container["image"] in given.values()


@pytest.mark.apiserver
def test_dashboards_have_the_sidecar_label_and_alerts_link_to_existing_runbooks(helm):
    documents = rendered(
        helm, "--set=monitoring.dashboards=true,monitoring.prometheusRule=true,monitoring.runbooks=https://x/y"
    )
    boards = [
        each for each in of_kind(documents, "ConfigMap") if each["metadata"]["labels"].get("grafana_dashboard") == "1"
    ]
    assert {json.loads(text)["uid"] for each in boards for text in each["data"].values()} == {
        "gog-run", "gog-tools", "gog-training", "gog-operator",
    }  # fmt: skip
    (rules,) = of_kind(documents, "PrometheusRule")
    alerts = [rule for group in rules["spec"]["groups"] for rule in group["rules"] if "alert" in rule]
    assert alerts and all(each["annotations"]["runbook_url"].startswith("https://x/y#gog") for each in alerts)
    assert not of_kind(rendered(helm), "ConfigMap")


@pytest.mark.apiserver
@pytest.mark.parametrize(
    ("values", "message"),
    [
        ("watch.allNamespace=true", "additional properties 'allNamespace' not allowed"),
        ("watch.namespaces={Team_A}", "does not match pattern"),
        ("images.pullPolicy=Sometimes", "value must be one of 'Always', 'IfNotPresent', 'Never'"),
        ("images.trainer=", "minLength: got 0, want 1"),
        ("serviceAccount.create=false", "minLength: got 0, want 1"),
        ("networkPolicy.egress[0].cidr=example.com,networkPolicy.egress[0].ports={443}", "does not match pattern"),
        ("operator.logFormat=yaml", "value must be one of 'text', 'json'"),
        ("operator.copies=2", "additional properties 'copies' not allowed"),
        ("crds.install=yes", "want boolean"),
        ("pods.env.A=1", "want string"),
        ("trustedCA.configMap=Company_CA", "does not match pattern"),
        ("istio.sidecars=true", "additional properties 'sidecars' not allowed"),
    ],
)
def test_an_unknown_value_is_refused(helm, values, message):
    assert message in helm("template", "gog", CHART, f"--set={values}", fails=True)


@pytest.mark.apiserver
@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("app.kubernetes.io/name", "the chart sets this label: leave it out"),
        ("app.kubernetes.io/managed-by", "the chart sets this label: leave it out"),
        ("helm.sh/chart", "the chart sets this label: leave it out"),
        ("sidecar.istio.io/inject", "the chart sets this label: use istio.inject"),
    ],
)
def test_a_label_of_the_operator_s_pod_that_the_chart_sets_is_refused(helm, label, message):
    def given(name):
        return "--set-json=operator.podLabels=" + json.dumps({name: "x"})

    said = helm("template", "gog", CHART, given(label), fails=True)
    assert label.replace("/", "~1") in said and message in said
    assert "app.kubernetes.io/part-of: x" in helm("template", "gog", CHART, given("app.kubernetes.io/part-of"))


@pytest.mark.apiserver
@pytest.mark.parametrize("case", CASES, ids=lambda path: path.stem)
def test_each_set_of_values_installs_and_uninstalls_and_keeps_the_definitions(helm, api_server, case):
    home = api_server.namespace("gog")
    for name in yaml.safe_load(case.read_text()).get("watch", {}).get("namespaces", ()):
        api_server.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    # The definitions are there already, from the fixture; to apply them once is enough, because it takes seconds.
    once = [] if case.stem == "default" else ["--set=crds.install=false"]
    notes = helm("install", "gog", CHART, "-n", home, "-f", case, "--take-ownership", *once, server=api_server)
    assert f"kubectl -n {home} rollout status deployment/gog-operator" in notes
    deployment = yaml.safe_load(api_server.kubectl("get", "deployment/gog-operator", "-n", home, "-o", "yaml"))
    template = deployment["spec"]["template"]
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "as-is", "namespace": home},
        "spec": template["spec"],
    }
    api_server.kubectl("create", "--dry-run=server", "-f", "-", input=yaml.safe_dump(pod))  # under `restricted`
    helm("uninstall", "gog", "-n", home, server=api_server)
    assert "gogruns.gog.dev" in api_server.kubectl("get", "crd", "-o", "name")
    assert api_server.kubectl("get", "deployments,roles,rolebindings", "-n", home, "-o", "name") == ""


@pytest.mark.apiserver
def test_the_operator_has_permissions_in_its_namespace_only(helm, api_server):
    home, elsewhere = api_server.namespace("gog"), api_server.namespace("other")
    helm("install", "gog", CHART, "-n", home, "--set=crds.install=false", server=api_server)
    account = f"--as=system:serviceaccount:{home}:gog-operator"

    def may(verb, resource, namespace):
        resource, _, part = resource.partition("/")
        query = [verb, resource, f"--subresource={part}", account, "-n", namespace]
        return api_server.kubectl("auth", "can-i", *query, check=False).strip()

    assert may("create", "jobs.batch.volcano.sh", home) == "yes"
    assert may("patch", "gogruns.gog.dev/status", home) == "yes"
    assert may("create", "jobs.batch.volcano.sh", elsewhere) == "no"
    assert may("get", "secrets", home) == "no" and may("list", "secrets", home) == "no"
    assert may("create", "pods/exec", home) == "no"


@pytest.mark.apiserver
def test_the_installation_without_helm_is_accepted(api_server):
    api_server.kubectl("apply", "--server-side", "--force-conflicts", "-f", MANIFESTS / "install.yaml")
    assert "gog-operator" in api_server.kubectl("get", "deployment", "-n", "gog-system", "-o", "name")
