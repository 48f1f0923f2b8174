"""SIGKILL at every point of the workflow, and in the middle of hundreds of them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from nacl.signing import SigningKey

from apps.recon.demo_child import Child
from apps.recon.demo_scans import Item, Scanner, real_items
from apps.recon.demo_tally import count
from apps.recon.demo_verify import RecordedStep, Report, check_steps, verify
from apps.recon.envelope import seal
from apps.recon.generator import naabu_scan
from apps.recon.schema import DATABASE, NAMESPACE
from apps.recon.store import LedgerLine, Store
from apps.recon.surreal import Surreal

REPOSITORY = Path(__file__).resolve().parents[2]
SCAN = naabu_scan("crash", 250)  # two batches
STEPS = ("mark-processing", "parse", "persist-1", "persist-2", "mark-completed")
