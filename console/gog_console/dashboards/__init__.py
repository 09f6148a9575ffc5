"""Dashboards, recording rules and alerts; generated, so that tests can evaluate each of them on a real Prometheus."""
