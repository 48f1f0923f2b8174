"""The scanner service: one target per call, each scan one durable step.

A step that was running when the process died runs again. That of a campaign's target looks for the row first: a scan
that was written down, but not yet recorded by the engine, is not done twice.

Events go to the logger `recon.scan`: `scan_started`, `scan_completed`, `scan_failed`. They are written inside the step,
so a replay does not repeat them.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from restate import Context, RunOptions, Service, TerminalError

from apps.recon.campaigns.model import (
    CampaignOptions,
    CampaignScanRequest,
    ScanRequest,
    ScanResult,
    ScanSummary,
)
from apps.recon.campaigns.scanners import ScanFailed, Scanner, ScannerMissing, ScanTimedOut
from apps.recon.campaigns.store import CampaignStore
from apps.recon.campaigns.targets import AllowList, TargetRejected, expand, locate, parse_address

logger = logging.getLogger("recon.scan")

SERVICE = "ScanService"


@dataclass(frozen=True, slots=True)
class ScanRetry:
    """How often a scan that failed is tried: again after `first`, then after twice as long each time."""

    attempts: int = 3
    first: timedelta = timedelta(seconds=1)


class Scans:
    """The service and its handlers.

    `scan_target(target or ScanRequest)` answers a `ScanResult`; `scan_for_campaign` writes it to the campaign's row and
    answers a `ScanSummary`. Terminal errors: 400 not a target, 403 outside of the allowed networks, 404 unknown name,
    501 the scanner is not installed, 504 time limit, 500 the last attempt failed.
    """

    def __init__(
        self, store: CampaignStore, scanners: Mapping[str, Scanner], allow: AllowList, retry: ScanRetry
    ) -> None:
        self._store = store
        self._scanners = scanners
        self._allow = allow
        service = self.service = Service(SERVICE, description="Scans one target.")
        policy = {"max_attempts": retry.attempts, "initial_retry_interval": retry.first, "retry_interval_factor": 2.0}
        to_result: RunOptions[ScanResult] = RunOptions(type_hint=ScanResult, **policy)
        to_summary: RunOptions[ScanSummary] = RunOptions(type_hint=ScanSummary, **policy)

        @service.handler()
        async def scan_target(ctx: Context, request: Any) -> ScanResult:
            """Any, because a plain text is a request too, and what is neither deserves 400 and not a retry."""
            wanted = read_request(request)
            address = await ctx.run_typed("locate", self._locate, RunOptions(type_hint=str), wanted.target)
            return await ctx.run_typed(
                "scan", self._scan, to_result, ctx.request().id, wanted.target, address, wanted.options
            )

        @service.handler(ingress_private=True)
        async def scan_for_campaign(ctx: Context, request: CampaignScanRequest) -> ScanSummary:
            try:
                return await ctx.run_typed("scan", self._scan_row, to_summary, ctx.request().id, request)
            except TerminalError as error:
                if error.status_code == 409:  # cancelled: this target has no result
                    raise
                await ctx.run_typed("keep failure", self._keep_failure, RunOptions(), request, error.message)
                return ScanSummary(request.target, 0, error.message)

        self.scan_target, self.scan_for_campaign = scan_target, scan_for_campaign

    async def _locate(self, target: str) -> str:
        try:
            [only] = expand(target)
            return str(await locate(only, self._allow))
        except TargetRejected as error:
            raise TerminalError(f"{target}: {error}", status_code=error.status_code) from error
        except ValueError as error:
            raise TerminalError(f"{target} is a network; start a campaign for it", status_code=400) from error

    async def _scan_row(self, request_id: str, request: CampaignScanRequest) -> ScanSummary:
        known = await self._store.result(request.campaign_id, request.target)
        if known is not None and known.state == "scanned":
            return ScanSummary(request.target, len(known.ports))
        options = request.options
        scanned_with = fingerprint(request.address, options)
        result = await self._reuse(request, scanned_with) if options.reuse_s else None
        if result is None:
            result = await self._scan(request_id, request.target, request.address, options)
        await self._store.save_result(request.campaign_id, result, scanned_with)
        return ScanSummary(result.target, len(result.ports))

    async def _reuse(self, request: CampaignScanRequest, scanned_with: str) -> ScanResult | None:
        since = datetime.now(UTC) - timedelta(seconds=request.options.reuse_s)
        known = await self._store.reusable(scanned_with, since)
        if known is None:
            return None
        return ScanResult(
            request.target, request.address, known.is_up, known.ports, known.elapsed_ms or 0, is_reused=True
        )

    async def _scan(self, request_id: str, target: str, address: str, options: CampaignOptions) -> ScanResult:
        # Once more, for whoever calls this service with an address of his own.
        try:
            self._allow.check(parse_address(address))
        except TargetRejected as error:
            raise TerminalError(f"{target}: {error}", status_code=error.status_code) from error
        scanner = self._scanners[options.scanner]
        fields = {"target": target, "address": address, "scanner": options.scanner, "request_id": request_id}
        logger.info("scan_started", extra=fields)
        began_s = time.monotonic()
        try:
            found = await scanner.scan(address, options.ports, limit_s=options.target_timeout_s)
        except (ScanTimedOut, ScannerMissing) as error:
            logger.warning("scan_failed", extra={**fields, "error": str(error), "is_final": True})
            code = 504 if isinstance(error, ScanTimedOut) else 501
            raise TerminalError(str(error), status_code=code) from error
        except ScanFailed as error:
            logger.warning("scan_failed", extra={**fields, "error": str(error), "is_final": False})
            raise
        elapsed_ms = round((time.monotonic() - began_s) * 1000)
        logger.info("scan_completed", extra={**fields, "services": len(found.ports), "elapsed_ms": elapsed_ms})
        return ScanResult(target, address, found.is_up, found.ports, elapsed_ms)

    async def _keep_failure(self, request: CampaignScanRequest, reason: str) -> None:
        await self._store.save_failure(request.campaign_id, request.target, reason)


def read_request(request: Any) -> ScanRequest:
    """A request for one target, from a text or an object.

    Raises:
        TerminalError: 400, it is neither.
    """
    try:
        return msgspec.convert({"target": request} if isinstance(request, str) else request, ScanRequest)
    except msgspec.ValidationError as error:
        raise TerminalError(f"this is no scan request: {error}", status_code=400) from error


def fingerprint(address: str, options: CampaignOptions) -> str:
    """The same for scans that would find the same."""
    text = msgspec.json.encode([address, options.scanner, sorted(set(options.ports))])
    return hashlib.sha256(text).hexdigest()
