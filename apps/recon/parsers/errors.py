"""Why a scan is refused as a whole."""

from __future__ import annotations


class ScanRejected(Exception):
    """The scan will never parse, however often it is tried: the job fails with this text."""
