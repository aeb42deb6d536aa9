"""A small web shop: what the demonstration and the benchmarks profile under load."""

from .app import create_app

__all__ = ["create_app"]
