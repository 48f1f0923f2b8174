"""The judge of the demo: reads the database with SQL of its own and recomputes what must be there.

Nothing of the application is used: prices, the formula of the score and the reading of the extract are written again here,
from `README.md` and the format's definition, so that an error in both would have to be made twice.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any

DISCOVERY_CENTS = 100
ENRICHMENT_CENTS = 500
OWNER_QUESTION_USD = 0.005

Steps = dict[tuple[str, str], tuple[int, int]]
"""(name, subject) -> (attempts, when it ended), of steps that are done."""


def read(path: Path, query: str, *values: Any) -> list[dict[str, Any]]:
    """Rows of the database, without changing anything in it."""
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as database:
        database.row_factory = sqlite3.Row
        rows = [dict(row) for row in database.execute(query, values)]
    database.close()
    return rows


def finished_steps(path: Path, job_id: str) -> Steps:
    """The steps of a job that are done."""
    rows = read(
        path,
        "SELECT name, subject, attempt_count, finished_at_ms FROM job_steps WHERE job_id = ? AND status = 'completed'",
        job_id,
    )
    return {(row["name"], row["subject"]): (row["attempt_count"], row["finished_at_ms"]) for row in rows}


def places_in(extract: Path, key: str, value: str) -> set[str]:
    """Identities of the named places with this tag, by Python's own JSON."""
    features = json.loads(extract.read_text())["features"]
    found = [feature["properties"] for feature in features]
    return {f"osm:{tags['@id']}" for tags in found if tags.get(key) == value and tags.get("name")}


def money(jobs: dict[str, str], ledger: list[dict[str, Any]], wallet: dict[str, Any], topped_up: int) -> list[str]:
    """What is wrong with the ledger and the wallet.

    Args:
        jobs: Job id -> `discovery`, `enrichment`, or `cancelled` for an enrichment that was.
    """
    wanted = {"discovery": ["charge"], "enrichment": ["hold", "capture"], "cancelled": ["hold", "release"]}
    problems: list[str] = []
    balance = held = 0
    for number, line in enumerate(ledger):
        balance += line["amount_cents"]
        held += line["held_cents"]
        if (line["seq"], line["balance_after_cents"], line["held_after_cents"]) != (number, balance, held):
            problems.append(f"line {number} of the ledger says {line}, the lines before add up to {balance} and {held}")
    keys = Counter(line["key"] for line in ledger)
    problems += [f"{key} was booked {count} times" for key, count in keys.items() if count > 1]
    for job_id, kind in jobs.items():
        booked = [line["kind"] for line in ledger if line["job_id"] == job_id]
        if booked != wanted[kind]:
            problems.append(f"{kind} {job_id} was booked as {booked}")
    spent = sum(
        {"discovery": DISCOVERY_CENTS, "enrichment": ENRICHMENT_CENTS, "cancelled": 0}[kind] for kind in jobs.values()
    )
    said = (wallet["balance_cents"], wallet["held_cents"], wallet["booking_count"], wallet["lifetime_spent_cents"])
    if said != (topped_up - spent, 0, len(ledger), spent):
        problems.append(
            f"the wallet says {said}; {topped_up} came in, {spent} was spent, {len(ledger)} lines were read"
        )
    if (balance, held) != (topped_up - spent, 0):
        problems.append(f"the ledger adds up to {balance} and {held} held")
    return problems


def recomputed(lead: dict[str, Any], *, is_enriched: bool) -> float:
    """The score of a row of `leads`, by the formula in the README."""
    business, scan = json.loads(lead["business"]), json.loads(lead["scan"] or "null")
    is_there = bool(scan) and scan["access"]["is_reachable"]
    score = 50.0
    if is_there:
        score += 20
        score += 10 * any(one["name"] in ("facebook_pixel", "google_analytics") for one in scan.get("trackers", []))
    is_readable = is_there and sum(part["points"] for part in scan["ai_readability"]["components"]) >= 50
    score += 0 if is_readable else 15
    score += 5 * ((business.get("review_count") or 0) > 20)
    score = min(100.0, score)
    if not is_enriched:
        return round(score, 1)
    audit = json.loads(lead["audit"] or "null")
    contact = scan.get("contact", {}) if is_there else {}
    phones = [phone for phone in contact.get("phones", []) if not phone.get("is_fax")]
    reach = 40 * (lead["owner"] is not None)
    reach += 30 * bool(business.get("email") or contact.get("emails"))
    reach += 30 * bool(business.get("phone") or phones)
    need = 100 - (audit["score"] if audit else 0)
    parts = [round(0.5 * score, 2), round(0.3 * need, 2), round(0.2 * reach, 2)]
    return round(min(100.0, sum(parts)), 1)


def scores(path: Path, job_id: str, *, is_enriched: bool) -> tuple[int, list[str]]:
    """How many leads the job has, and those whose score is another than the formula's."""
    problems: list[str] = []
    leads = read(path, "SELECT * FROM leads WHERE job_id = ?", job_id)
    for lead in leads:
        expected = recomputed(lead, is_enriched=is_enriched)
        if lead["score"] is None or abs(lead["score"] - expected) > 0.051:
            problems.append(f"{lead['place_id']} has score {lead['score']}, the formula gives {expected}")
        if (
            lead["score_report"]
            and abs(sum(part["points"] for part in json.loads(lead["score_report"])["parts"]) - (lead["score"] or 0))
            > 0.051
        ):
            problems.append(f"{lead['place_id']}: the parts of its score do not add up to it")
        if bool(lead["is_enriched"]) != is_enriched or lead["error"]:
            problems.append(f"{lead['place_id']} is not what the job says: {lead['error']}")
    return len(leads), problems


def costs(path: Path, job_id: str, asked: int) -> tuple[float, list[str]]:
    """What the job's providers cost, and what is wrong with it.

    Args:
        asked: Businesses for which the paid source of owners was asked.
    """
    total = read(path, "SELECT coalesce(sum(cost_usd), 0) AS usd FROM cost_events WHERE job_id = ?", job_id)[0]["usd"]
    doubled = read(
        path,
        "SELECT step, subject, type, provider FROM cost_events WHERE job_id = ? "
        "GROUP BY step, subject, type, provider HAVING count(*) > 1",
        job_id,
    )
    problems = [f"the cost of {row} is there twice" for row in doubled]
    if abs(total - asked * OWNER_QUESTION_USD) > 1e-9:
        problems.append(f"{job_id} cost ${total}; {asked} questions at ${OWNER_QUESTION_USD} were asked")
    return total, problems


def unrepeated(before: Steps, after: Steps) -> list[str]:
    """Steps that were done before the kill and are not as they were."""
    return [
        f"step {name} of {before[name]} is {after.get(name)} now" for name in before if after.get(name) != before[name]
    ]
