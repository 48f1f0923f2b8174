"""The certificate and key that both APIs are served with."""

from __future__ import annotations

import ssl
from pathlib import Path

from holdfast.errors import InvalidSetting
from holdfast.serving.connection import ALPN_PROTOCOLS


def server_context(cert: str, key: str | None) -> ssl.SSLContext:
    """TLS 1.2 or newer, HTTP/2 or HTTP/1.1.

    Args:
        cert: PEM file with the certificate, followed by those that lead to its authority.
        key: PEM file with its private key, without a passphrase; None: it is in `cert` as well.
    Raises:
        InvalidSetting: a file cannot be read, is no PEM, or the key does not belong to the certificate.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(ALPN_PROTOCOLS)
    for path in (cert, key):
        if path is not None and not Path(path).is_file():
            raise InvalidSetting(f"there is no file {path}", hint="--tls-cert and --tls-key take PEM files")
    try:
        # An empty passphrase, or Python would ask for one at the terminal.
        context.load_cert_chain(cert, key, password="")
    except (ssl.SSLError, OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
        raise InvalidSetting(
            f"certificate {cert} and key {key or cert} cannot be used: {reason}",
            hint="PEM files, readable by this user, the key unencrypted and the one the certificate was made for",
        ) from error
    return context
