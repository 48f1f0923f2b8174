"""Pages for people: the report of a lead, a job with its leads, the list of jobs. Made here, without script or anything from
elsewhere, so that a saved page is whole.

What stands on them was written by strangers: everything is escaped, only http and https addresses become links, and the
Content-Security-Policy lets a browser load nothing and run nothing.
"""

from __future__ import annotations

import base64
import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import jinja2
from markupsafe import Markup

from apps.leads.messages import LeadItem, item
from apps.leads.model import JobView, Lead

HERE = Path(__file__).parent / "templates"
LISTED_MAX = 10
"""Addresses and numbers on a report; a page that lists hundreds is no help."""

_CSS = (HERE / "page.css").read_text()
_STYLE = base64.b64encode(hashlib.sha256(_CSS.encode()).digest()).decode()
_PAGE_CSP = f"default-src 'none'; style-src 'sha256-{_STYLE}'; img-src data:; form-action 'none'; base-uri 'none'"
CSP = f"{_PAGE_CSP}; frame-ancestors 'none'"
"""For the header of every answer. A saved page carries it itself, but for the last part, which browsers take from a header only."""


def lead_page(lead: Lead) -> str:
    """The report of one lead, as a whole HTML document."""
    return _render("lead.html", lead=lead)


def job_page(job: JobView, leads: list[Lead]) -> str:
    """A job and its leads; refreshes itself until the job is over."""
    items: list[LeadItem] = [item(lead) for lead in leads]
    licences = dict.fromkeys(lead.business.licence for lead in leads if lead.business.licence)
    return _render("job.html", job=job, items=items, licences=[*licences])


def jobs_page(jobs: list[JobView]) -> str:
    """The newest jobs."""
    return _render("jobs.html", jobs=jobs)


def problem_page(title: str, message: str) -> str:
    """Says what went wrong."""
    return _render("problem.html", title=title, message=message)


def web_url(url: str | None) -> str | None:
    """The address, if it may become a link: `javascript:` and its like may not."""
    try:
        parts = urlsplit(url or "")
    except ValueError:
        return None
    return url if parts.scheme in ("http", "https") and parts.hostname else None


def emails(lead: Lead) -> list[str]:
    """The directory's address and those of the website, each once."""
    found = [email.address for email in lead.scan.contact.emails] if lead.scan else []
    return _once([lead.business.email, *found])


def phones(lead: Lead) -> list[str]:
    """The directory's number and those of the website, each once and no fax."""
    found = [phone.number for phone in lead.scan.contact.phones if not phone.is_fax] if lead.scan else []
    return _once([lead.business.phone, *found])


def what(job: JobView) -> str:
    """What a job is about, for people."""
    request = job.request
    if job.workflow_id == "discovery":
        return f"{request.get('niche', '')} in {request.get('location', '')}"
    if of := request.get("discovery_job_id"):
        return f"the leads of {of}"
    return f"{len(request.get('businesses', []))} businesses"


def time_text(at_ms: int) -> str:
    """`2026-11-21 17:04:05`, in UTC."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")


def figure(value: float | None) -> str:
    """A number without needless digits; a dash for none."""
    return "–" if value is None else f"{value:g}"


def dollars(cents: int | None) -> str:
    return "–" if cents is None else f"${cents / 100:.2f}"


def host(url: str | None) -> str:
    """The name of the site, without `www.`."""
    try:
        return (urlsplit(url or "").hostname or "").removeprefix("www.")
    except ValueError:
        return ""


def _words(name: str) -> str:
    return str(name).replace("_", " ")


def _once(values: list[str | None]) -> list[str]:
    # The directory writes `+32 63 22 00 00` and the scan `+3263220000`: the same number.
    once: dict[str, str] = {}
    for value in values:
        if value:
            once.setdefault(value.replace(" ", "").lower(), value)
    return [*once.values()][:LISTED_MAX]


def _render(template: str, **values: Any) -> str:
    return _environment.get_template(template).render(values)


_environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(HERE), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
)
_environment.globals.update(
    css=Markup(_CSS),  # noqa: S704 our own file
    page_csp=_PAGE_CSP,
    job_url=lambda job_id: f"/jobs/{quote(job_id, safe='')}",
    lead_url=lambda lead_id: f"/leads/{quote(lead_id, safe='/:')}",
    web_url=web_url,
    emails=emails,
    phones=phones,
    what=what,
    time=time_text,
    figure=figure,
    dollars=dollars,
    host=host,
    words=_words,
)
