"""Request identity: requests to endpoints are signed, so that a service can refuse everybody else.

Source of the format: the Restate service protocol's request identity, version 1 (an Ed25519-signed JWT per request).
"""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

from holdfast.errors import InvalidRequest

EXPIRES_S = 60
_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


class Identity:
    """A signing key.

    Args:
        path: PEM file with one PKCS#8 block, an Ed25519 private key.
    Raises:
        InvalidRequest: no such file, no such key in it, or the `cryptography` package is missing.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        try:
            from cryptography.exceptions import UnsupportedAlgorithm
            from cryptography.hazmat.primitives import serialization
            from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        except ImportError as error:
            raise InvalidRequest(
                "signing requests needs the cryptography package", hint="pip install 'holdfast[identity]'"
            ) from error
        hint = "make one: openssl genpkey -algorithm ed25519 -out identity.pem"
        try:
            key: Any = serialization.load_pem_private_key(Path(path).read_bytes(), None)
        except OSError as error:
            raise InvalidRequest(f"cannot read the identity key {path}: {error.strerror}", hint=hint) from error
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise InvalidRequest(f"{path} holds no unencrypted private key in PEM form", hint=hint) from error
        if not isinstance(key, Ed25519PrivateKey):
            raise InvalidRequest(f"{path} holds a key of another kind than Ed25519", hint=hint)
        self._key = key
        raw = key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        self.public_key = public_key_text(raw)
        """What services list in `identity_keys`: `publickeyv1_…`."""
        self._head = _encoded({"typ": "JWT", "alg": "EdDSA", "kid": self.public_key})

    def headers(self, path: str, key: str | None, now_s: int) -> dict[str, str]:
        """Headers that prove who asks for `path`.

        Args:
            key: Of the object or workflow.
            now_s: Epoch seconds; the signature is good for a minute around it.
        """
        claims: dict[str, Any] = {"aud": path, "exp": now_s + EXPIRES_S, "iat": now_s, "nbf": now_s - EXPIRES_S}
        if key is not None:
            claims["sub"] = key
        signed = self._head + b"." + _encoded(claims)
        token = signed + b"." + _base64(self._key.sign(signed))
        return {"x-restate-signature-scheme": "v1", "x-restate-jwt-v1": token.decode()}


def public_key_text(raw: bytes) -> str:
    """The 32 bytes of a public key as services list them."""
    number, digits = int.from_bytes(raw, "big"), ""
    while number:
        number, digit = divmod(number, 58)
        digits = _BASE58[digit] + digits
    return "publickeyv1_" + "1" * (len(raw) - len(raw.lstrip(b"\0"))) + digits


def _encoded(document: dict[str, Any]) -> bytes:
    return _base64(json.dumps(document, separators=(",", ":")).encode())


def _base64(raw: bytes) -> bytes:
    return base64.urlsafe_b64encode(raw).rstrip(b"=")
