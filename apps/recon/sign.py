"""Sign a scan, for sending it with curl.

    python -m apps.recon.sign scan.jsonl | curl -s -X POST http://127.0.0.1:3000/v1/mesh/ingest -d @-

The key is made on first use and kept in the file named by --key.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from nacl.signing import SigningKey

from apps.recon.envelope import BODY_BYTES_MAX, seal


def load_key(path: Path) -> SigningKey:
    """The Ed25519 key in `path` (32 bytes), made and stored there, readable by its owner only, if there is none.

    Raises:
        ValueError: the file is no such key.
    """
    try:
        seed = path.read_bytes()
    except FileNotFoundError:
        key = SigningKey.generate()
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(key.encode())
        return key
    if len(seed) != 32:
        raise ValueError(f"{path} holds {len(seed)} bytes; a scanner key has 32")
    return SigningKey(seed)


def main() -> int:
    """Entry point: the envelope goes to standard output."""
    parser = argparse.ArgumentParser(prog="python -m apps.recon.sign", description="Sign a scan.")
    parser.add_argument("scan", type=Path, help="output of naabu (JSON lines), masscan (JSON) or nmap (XML)")
    parser.add_argument("--key", type=Path, default=Path("scanner.key"), help="the scanner's key (scanner.key)")
    arguments = parser.parse_args()
    try:
        body = seal(arguments.scan.read_bytes(), load_key(arguments.key), timestamp_s=int(time.time()))
    except OSError as error:
        sys.stderr.write(f"error: {error.filename}: {error.strerror}\n")
        return 1
    except ValueError as error:
        sys.stderr.write(
            f"error: {error}\nnext: name another file with --key; a new one is made if it does not exist\n"
        )
        return 1
    if len(body) > BODY_BYTES_MAX:
        sys.stderr.write(f"error: {len(body)} bytes when signed; {BODY_BYTES_MAX} are accepted\nnext: split the scan\n")
        return 1
    sys.stdout.buffer.write(body)
    return 0


if __name__ == "__main__":
    sys.exit(main())
