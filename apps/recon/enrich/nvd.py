"""Answers of the NVD CVE API 2.0 -> vulnerabilities. Pure; the client is in `nvd_client.py`.

This product uses the NVD API but is not endorsed or certified by the NVD.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from apps.recon.enrich.matching import Configuration

SUMMARY_CHARS_MAX = 4000
EXPLOIT_REFS_MAX = 20
CPES_MAX = 100


class NotAnAnswer(ValueError):
    """The text is no answer of the CVE API 2.0."""


class _CvssData(msgspec.Struct, rename="camel"):
    base_score: float
    base_severity: str | None = None


class _Metric(msgspec.Struct, rename="camel"):
    cvss_data: _CvssData
    type: str = ""
    base_severity: str | None = None
    """Version 2 has the severity here, beside the data."""


class _Metrics(msgspec.Struct, rename="camel"):
    v31: list[_Metric] = msgspec.field(name="cvssMetricV31", default_factory=list[_Metric])
    v30: list[_Metric] = msgspec.field(name="cvssMetricV30", default_factory=list[_Metric])
    v2: list[_Metric] = msgspec.field(name="cvssMetricV2", default_factory=list[_Metric])


class _Text(msgspec.Struct):
    lang: str
    value: str


class _Reference(msgspec.Struct):
    url: str
    tags: list[str] = []


class _Cve(msgspec.Struct, rename="camel"):
    id: str
    published: str
    last_modified: str
    vuln_status: str = ""
    descriptions: list[_Text] = []
    metrics: _Metrics = msgspec.field(default_factory=_Metrics)
    configurations: list[Configuration] = []
    references: list[_Reference] = []


class _Item(msgspec.Struct):
    cve: _Cve


class _Answer(msgspec.Struct, rename="camel"):
    results_per_page: int
    start_index: int
    total_results: int
    vulnerabilities: list[_Item] = []


class Vulnerability(msgspec.Struct):
    """One CVE record, as far as it is used."""

    cve_id: str
    summary: str
    published_at: datetime
    modified_at: datetime
    is_rejected: bool
    cvss: float | None
    """Base score 0 to 10: version 3.1, else 3.0, else 2; None when it has not been scored."""
    cvss_version: str | None
    severity: str | None
    """`LOW`, `MEDIUM`, `HIGH`, `CRITICAL` or `NONE`, in capitals as the source writes it."""
    configurations: list[Configuration]
    exploit_refs: list[str]
    """Addresses that the NVD marks as exploits."""

    @property
    def cpes(self) -> list[str]:
        """The criteria of its configurations, each once, sorted, at most `CPES_MAX`."""
        found = {each.criteria for one in self.configurations for node in one.nodes for each in node.cpe_match}
        return sorted(found)[:CPES_MAX]


class Page(msgspec.Struct):
    """One page of an answer."""

    vulnerabilities: list[Vulnerability]
    start_index: int
    total_count: int

    @property
    def next_index(self) -> int | None:
        """Where the next page starts, or None on the last one."""
        end = self.start_index + len(self.vulnerabilities)
        return end if self.vulnerabilities and end < self.total_count else None


def decode_page(body: bytes | str) -> Page:
    """Decode one answer of `GET /rest/json/cves/2.0`.

    Raises:
        NotAnAnswer: it is something else.
    """
    try:
        answer = msgspec.json.decode(body, type=_Answer)
        found = [_vulnerability(item.cve) for item in answer.vulnerabilities]
    except (msgspec.DecodeError, ValueError) as error:
        raise NotAnAnswer(f"not an answer of the NVD's CVE API 2.0: {error}") from error
    return Page(found, answer.start_index, answer.total_results)


def decode_cve(record: Any) -> Vulnerability:
    """One CVE object without the envelope around it, as the NVD's data feeds have them.

    Raises:
        NotAnAnswer: it is something else.
    """
    try:
        return _vulnerability(msgspec.convert(record, type=_Cve))
    except (msgspec.ValidationError, ValueError) as error:
        raise NotAnAnswer(f"not a CVE record of the NVD: {error}") from error


def _vulnerability(cve: _Cve) -> Vulnerability:
    cvss, version, severity = _score(cve.metrics)
    texts = {text.lang: text.value for text in reversed(cve.descriptions)}
    summary = texts.get("en") or (cve.descriptions[0].value if cve.descriptions else "")
    return Vulnerability(
        cve_id=cve.id,
        summary=summary[:SUMMARY_CHARS_MAX],
        published_at=_time(cve.published),
        modified_at=_time(cve.last_modified),
        is_rejected=cve.vuln_status == "Rejected",
        cvss=cvss,
        cvss_version=version,
        severity=severity,
        configurations=cve.configurations,
        exploit_refs=[each.url for each in cve.references if "Exploit" in each.tags][:EXPLOIT_REFS_MAX],
    )


def _score(metrics: _Metrics) -> tuple[float | None, str | None, str | None]:
    for version, given in (("3.1", metrics.v31), ("3.0", metrics.v30), ("2.0", metrics.v2)):
        if given:
            metric = next((each for each in given if each.type == "Primary"), given[0])
            return metric.cvss_data.base_score, version, metric.cvss_data.base_severity or metric.base_severity
    return None, None, None


def _time(text: str) -> datetime:
    at = datetime.fromisoformat(text)
    return at if at.tzinfo else at.replace(tzinfo=UTC)  # the NVD writes UTC without saying so
