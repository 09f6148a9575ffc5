"""The addresses to which a policy's versions are sent: of pods, whatever else bears the label of the service."""

from __future__ import annotations

import pytest
import support.operator_golden as golden

from gog_operator.cluster.api_errors import TranslatedApi
from gog_operator.cluster.kserve import KServeServers
from gog_operator.cluster.kube import Api

POD = {"kind": "Pod", "name": "a"}


class Slices(Api):
    """Lists EndpointSlices."""

    def __init__(self, *slices):
        self.slices = slices

    def send(self, request):
        return {"items": list(self.slices)}


def endpoint(*addresses, target=POD, **conditions):
    return {"addresses": list(addresses), "conditions": conditions} | ({"targetRef": target} if target else {})


def found(*endpoints, type_="IPv4"):
    api = TranslatedApi(Slices({"addressType": type_, "endpoints": list(endpoints)}))
    server = golden.thing("ToolServer", "policy", {"role": "policy", "base": "tiny"})
    return KServeServers(api, "research", golden.PLATFORM).addresses(server)


def test_every_pod_has_an_address_ready_or_not():
    assert found(endpoint("10.1.2.4", ready=False), endpoint("10.1.2.3", ready=True)) == (
        "http://10.1.2.3:8080",
        "http://10.1.2.4:8080",
    )
    assert found(endpoint("fd00::7"), type_="IPv6") == ("http://[fd00::7]:8080",)
    assert found(endpoint("10.1.2.3", terminating=True)) == ()


@pytest.mark.parametrize(
    ("given", "type_"),
    [
        (endpoint("10.1.2.3", target=None), "IPv4"),
        (endpoint("10.1.2.3", target={"kind": "Node", "name": "a"}), "IPv4"),
        (endpoint("metadata.google.internal"), "FQDN"),
        (endpoint("metadata.google.internal"), "IPv4"),
        (endpoint("10.1.2.3@evil.example/?"), "IPv4"),
        (endpoint("169.254.169.254"), "IPv4"),
        (endpoint("127.0.0.1"), "IPv4"),
        (endpoint("::1"), "IPv6"),
        (endpoint("fd00::7%eth0"), "IPv6"),
        (endpoint(7), "IPv4"),
    ],
    ids=["no pod", "node", "name", "name as IPv4", "url", "metadata", "loopback", "loopback 6", "zone", "number"],
)
def test_what_is_no_address_of_a_pod_receives_no_request(given, type_):
    assert found(given, type_=type_) == ()
