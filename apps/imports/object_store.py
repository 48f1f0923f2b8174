"""`s3://bucket/key` as a request over HTTPS, signed when there are credentials (AWS Signature Version 4, GET and HEAD).

DuckDB could read such addresses itself, but only with an extension that is downloaded at first use, and without
resuming. A presigned https:// address needs nothing of this.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote, urlsplit

_NO_BODY = hashlib.sha256(b"").hexdigest()


@dataclass(frozen=True, slots=True)
class ObjectStore:
    """Where buckets are."""

    endpoint: str | None
    """For example http://127.0.0.1:9000: the bucket is then the path's first part. None is Amazon."""
    region: str

    @classmethod
    def from_environment(cls, endpoint: str | None, environ: Mapping[str, str]) -> ObjectStore:
        return cls(endpoint, _region(environ))

    def url(self, address: str) -> str:
        """The https address of `s3://bucket/key`.

        Raises:
            ValueError: bucket or key is missing.
        """
        parts = urlsplit(address)
        key = parts.path.lstrip("/")
        if not parts.netloc or not key:
            raise ValueError(f"{address[:200]} is not s3://bucket/key")
        path = quote(key, safe="/-_.~")
        if self.endpoint is None:
            return f"https://{parts.netloc}.s3.{self.region}.amazonaws.com/{path}"
        return f"{self.endpoint.rstrip('/')}/{parts.netloc}/{path}"


def signed_headers(method: str, url: str, environ: Mapping[str, str], *, now: datetime | None = None) -> dict[str, str]:
    """Headers that prove who asks; none without AWS_ACCESS_KEY_ID: then the object must be public.

    Other headers of the request are not signed: it may ask for a range.

    Args:
        now: For tests.
    """
    key_id, secret = environ.get("AWS_ACCESS_KEY_ID"), environ.get("AWS_SECRET_ACCESS_KEY")
    if not key_id or not secret:
        return {}
    stamp = (now or datetime.now(UTC)).strftime("%Y%m%dT%H%M%SZ")
    region = _region(environ)
    parts = urlsplit(url)
    signed = {"host": parts.netloc, "x-amz-content-sha256": _NO_BODY, "x-amz-date": stamp}
    if token := environ.get("AWS_SESSION_TOKEN"):
        signed["x-amz-security-token"] = token
    names = ";".join(sorted(signed))
    lines = [
        method,
        parts.path,
        parts.query,
        *(f"{name}:{signed[name]}" for name in sorted(signed)),
        "",
        names,
        _NO_BODY,
    ]
    scope = f"{stamp[:8]}/{region}/s3/aws4_request"
    to_sign = "\n".join(["AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256("\n".join(lines).encode()).hexdigest()])
    key = f"AWS4{secret}".encode()
    for part in (stamp[:8], region, "s3", "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.new(key, to_sign.encode(), "sha256").hexdigest()
    del signed["host"]
    authorization = f"AWS4-HMAC-SHA256 Credential={key_id}/{scope}, SignedHeaders={names}, Signature={signature}"
    return signed | {"authorization": authorization}


def _region(environ: Mapping[str, str]) -> str:
    return environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or "us-east-1"
