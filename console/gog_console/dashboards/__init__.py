"""Dashboards, recording rules and alerts: generated, so that a test can ask a real Prometheus about each of them."""
