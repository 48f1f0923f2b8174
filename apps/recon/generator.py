"""Large scans in naabu's output format, from a seed. Made up, unlike everything in `data/`; for volume only.

What real naabu files do is kept: an address target leaves `host` out, ports repeat, captured terminal output carries
log lines, all lines of one address share a time stamp. Addresses are taken from 198.18.0.0/15, which is reserved for
benchmarks and belongs to nobody.
"""

from __future__ import annotations

import random

_PORTS = (80, 443, 22, 8080, 8443, 3000, 25, 53, 21, 3306, 5432, 6379, 9200, 27017, 5900, 8000, 8888, 9090)
_WEIGHTS = (40, 38, 30, 12, 10, 6, 6, 5, 5, 4, 4, 3, 2, 2, 2, 2, 2, 1)
_FIRST_ADDRESS = 198 << 24 | 18 << 16
_ADDRESS_COUNT = 1 << 17
_TLS = {443, 8443}


def naabu_scan(seed: str, host_count: int, *, mean_ports: float = 3.0) -> str:
    """The output of one scan run: JSON lines, with some repeated lines and some log lines, as naabu prints them.

    Args:
        seed: Equal seeds give equal scans.
        host_count: How many distinct hosts have an open port.
        mean_ports: Open ports per host on average.
    """
    rng = random.Random(seed)  # noqa: S311 - repeatable test data, not a secret
    lines = [f"[INF] Running SYN scan with {rng.choice(('root', 'CAP_NET_RAW'))} privileges"]
    for number in rng.sample(range(_ADDRESS_COUNT), host_count):
        address = _dotted(_FIRST_ADDRESS + number)
        host = f'"host":"h{number}.bench.example",' if rng.random() < 0.3 else ""
        stamp = f"2026-03-{rng.randint(1, 28):02}T{rng.randint(0, 23):02}:00:00.{rng.randrange(10**9):09}Z"
        for port in _open_ports(rng, mean_ports):
            protocol = "udp" if port == 53 else "tcp"
            tls = "true" if port in _TLS else "false"
            line = f'{{{host}"ip":"{address}","timestamp":"{stamp}","port":{port},"protocol":"{protocol}","tls":{tls}}}'
            lines += [line, line] if rng.random() < 0.1 else [line]
    lines.append(f"[INF] Found {host_count} hosts")
    return "\n".join(lines) + "\n"


def _open_ports(rng: random.Random, mean: float) -> list[int]:
    count = min(len(_PORTS), 1 + int(rng.expovariate(1 / max(mean - 1, 0.01)) + 0.5))
    chosen: dict[int, None] = {}
    while len(chosen) < count:
        chosen[rng.choices(_PORTS, _WEIGHTS)[0]] = None
    return list(chosen)


def _dotted(number: int) -> str:
    return ".".join(str(number >> shift & 255) for shift in (24, 16, 8, 0))
