"""Builders, harnesses and fakes that several tests share."""
