"""A small mirror of the NVD's CVE API 2.0, from files: for trying recon without the network, for its demo and its tests.

    python -m apps.recon.enrich.mirror --port 8042
    NVD_URL=http://127.0.0.1:8042/rest/json/cves/2.0 RECON_NVD=true NVD_REQUESTS_PER_30S=600 python -m apps.recon ...

It answers `cpeName` with every record that speaks of that vendor and product, whatever the version; the real API is
exact. recon matches versions itself, so the outcome is the same.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from apps.recon.enrich.cpe import Cpe, NotACpe, parse_cpe

PATH = "/rest/json/cves/2.0"
DATA = Path(__file__).resolve().parents[1] / "data" / "vuln" / "nvd"
PAGE_MAX = 2000


def create_mirror(directory: Path = DATA) -> Starlette:
    """The mirror as an ASGI application; `app.state.asked` lists the parameters of every request it answered."""
    records = {record["id"]: record for path in sorted(directory.glob("*.json")) for record in _records(path)}
    about: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for record in records.values():
        for name in {(cpe.vendor, cpe.product) for cpe in _criteria(record)}:
            about.setdefault(name, []).append(record)

    async def answer(request: Request) -> Response:
        query = dict(request.query_params)
        request.app.state.asked.append(query)
        try:
            cpe = parse_cpe(query.get("cpeName", ""))
            start, size = int(query.get("startIndex", "0")), int(query.get("resultsPerPage", str(PAGE_MAX)))
        except (NotACpe, ValueError):
            return Response(status_code=404, headers={"message": "Invalid parameter."})
        if not cpe.has_version or not 0 < size <= PAGE_MAX or start < 0:
            return Response(status_code=404, headers={"message": "Invalid parameter."})
        return JSONResponse(_page(about.get((cpe.vendor, cpe.product), []), start, size))

    app = Starlette(routes=[Route(PATH, answer)])
    app.state.asked = []
    return app


def _page(found: list[dict[str, Any]], start: int, size: int) -> dict[str, Any]:
    page = found[start : start + size]
    return {
        "resultsPerPage": len(page),
        "startIndex": start,
        "totalResults": len(found),
        "format": "NVD_CVE",
        "version": "2.0",
        "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds").removesuffix("+00:00"),
        "vulnerabilities": [{"cve": record} for record in page],
    }


def _records(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a file: an answer of the API, or a list of bare records."""
    content: Any = json.loads(path.read_bytes())
    if isinstance(content, dict):
        yield from (item["cve"] for item in content["vulnerabilities"])
    else:
        yield from content


def _criteria(record: dict[str, Any]) -> Iterator[Cpe]:
    for configuration in record.get("configurations", []):
        for node in configuration["nodes"]:
            for match in node["cpeMatch"]:
                yield parse_cpe(match["criteria"])


def main() -> None:
    """Serve it on loopback until Ctrl-C."""
    parser = argparse.ArgumentParser(
        prog="python -m apps.recon.enrich.mirror", description="A small mirror of the NVD."
    )
    parser.add_argument("--data", type=Path, default=DATA, help="folder of NVD answers")
    parser.add_argument("--port", type=int, default=8042)
    arguments = parser.parse_args()
    uvicorn.run(create_mirror(arguments.data), host="127.0.0.1", port=arguments.port, log_level="warning")


if __name__ == "__main__":
    main()
