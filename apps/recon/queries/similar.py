"""Searching the texts of vulnerabilities: SurrealDB's full-text index, ranked by BM25.

A word that more than half of the texts have counts against a text in classic BM25; here it counts nothing. No
embeddings: that would need a hosted model.
"""

from __future__ import annotations

import re
from typing import Any

from apps.recon.queries.reading import QUERY_TIMEOUT, Reading

METHOD = "full-text, BM25"
WORDS_MAX = 16
"""The first ones of a query; each is a look into the index."""
SUMMARY_CHARS_MAX = 500

_WORD = re.compile(r"\w+", re.ASCII)
_CVE = re.compile(r"\bCVE-\d{4}-\d{4,19}\b", re.IGNORECASE)

# Ties are many in a small collection: more than asked for is read, and the rest of the order decided here.
_SPARE = 4

_FIELDS = "cve_id, title, summary, cvss, published_date, type::thing('vuln', cve_id).kev_flag AS kev_flag, "
_BY_ID = f"SELECT {_FIELDS} 0 AS score FROM $named.map(|$id| type::thing('vuln_doc', $id))"  # noqa: S608 constants


async def read_similar(reading: Reading, text: str, k: int) -> list[dict[str, Any]]:
    """The `k` vulnerabilities whose texts fit best; those that the query names come first."""
    named = list(dict.fromkeys(found.upper() for found in _CVE.findall(text)))
    words = list(dict.fromkeys(word.lower() for word in _WORD.findall(_CVE.sub(" ", text))))[:WORDS_MAX]
    results: list[dict[str, Any]] = []
    if named:
        (results,) = await reading(_BY_ID, named=named)
    if words:
        (found,) = await reading(
            _search(len(words)), limit=k * _SPARE, **{f"word_{index}": word for index, word in enumerate(words)}
        )
        known = {each["cve_id"] for each in results}
        results += sorted((each for each in found if each["cve_id"] not in known), key=lambda each: _order(each, words))
    for each in results:
        each["summary"] = each["summary"][:SUMMARY_CHARS_MAX]
        each["score"] = round(each["score"], 3)
    return results[:k]


def _search(word_count: int) -> str:
    """The statement for so many words; they themselves are bound."""
    numbers = range(word_count)
    score = " + ".join(f"math::max([search::score({number}), 0])" for number in numbers)
    tests = " OR ".join(f"text @{number}@ $word_{number}" for number in numbers)
    return f"SELECT {_FIELDS} {score} AS score FROM vuln_doc WHERE {tests} ORDER BY score DESC LIMIT $limit {QUERY_TIMEOUT}"  # noqa: S608 numbers only


def _order(row: dict[str, Any], words: list[str]) -> tuple[float, int, str]:
    text = f"{row['title']} {row['summary']}".lower()
    return -row["score"], -sum(word in text for word in words), row["cve_id"]
