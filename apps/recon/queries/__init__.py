"""Queries: one host and what is around it, hosts by what they have, what is new, texts. See README.md here."""

from __future__ import annotations

from apps.recon.queries.api import routes
from apps.recon.queries.cli import commands

__all__ = ["commands", "routes"]
