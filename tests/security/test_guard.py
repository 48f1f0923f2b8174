"""Which requests are answered, by host, page and token: a table. And which addresses other machines can reach."""

from __future__ import annotations

import pytest

from holdfast.errors import UnsafeAddress
from holdfast.security.exposure import check_exposure, is_loopback
from holdfast.security.guard import Guard, Origins
from holdfast.security.tokens import TokenGate

SECRET = "0123456789abcdef" * 2

HOSTS: dict[str, bool] = {
    "localhost": True,
    "localhost:8080": True,
    "LocalHost.:8080": True,
    "app.localhost:8080": True,
    "127.0.0.1:8080": True,
    "10.1.2.3": True,
    "[::1]:8080": True,
    "[2001:db8::1]": True,
    "engine.internal:8080": True,
    "Engine.Internal": True,
    "evil.example": False,
    "evil.example:8080": False,
    "localhost.evil.example": False,
    "127.0.0.1.evil.example": False,
    "notlocalhost": False,
    "engine.internal.evil.example": False,
    "": False,
    "127.0.0.1@evil.example": False,
    "[::1": True,
    "[evil.example]": False,
    "2130706433": False,
}


@pytest.mark.parametrize("host", HOSTS)
def test_host(host: str):
    guard = Guard("ingress", origins=Origins(), hosts=["engine.internal"])
    for _ in range(2):  # the second time from memory
        refusal = guard.refusal({b"host": host.encode()})
        assert (refusal is None) is HOSTS[host]
        if refusal is not None:
            assert refusal.status == 403
            assert "--allow-host" in refusal.message


def test_what_is_remembered_of_hosts_is_bounded():
    guard = Guard("ingress", origins=Origins(), hosts=[])
    for number in range(10_000):
        assert guard.refusal({b"host": f"x{number}.localhost".encode()}) is None
    assert len(guard._good_hosts) <= 64


def test_a_request_without_host_is_none_of_a_browser():
    assert Guard("ingress", origins=Origins(), hosts=[]).refusal({}) is None


PAGE = b"https://ui.example"
PAGES: dict[str, tuple[tuple[str, ...], dict[bytes, bytes], bool]] = {  # allowed, headers -> is answered
    "a program": ((), {b"host": b"localhost:8080"}, True),
    "our own page": ((), {b"host": b"localhost:8080", b"origin": b"http://localhost:8080"}, True),
    "our own page, TLS taken off by a proxy": ((), {b"host": b"app.example", b"origin": b"https://app.example"}, True),
    "another page": ((), {b"host": b"localhost:8080", b"origin": PAGE}, False),
    "another port": ((), {b"host": b"localhost:8080", b"origin": b"http://localhost:3000"}, False),
    "a name that begins alike": ((), {b"host": b"app", b"origin": b"http://app.evil.example"}, False),
    "a page without origin": ((), {b"host": b"localhost:8080", b"origin": b"null"}, False),
    "no host to be our own": ((), {b"origin": PAGE}, False),
    "an allowed page": (("https://ui.example",), {b"host": b"localhost", b"origin": PAGE}, True),
    "an allowed page, slash": (("https://ui.example/",), {b"host": b"localhost", b"origin": PAGE}, True),
    "another than the allowed page": (("https://ui.example",), {b"host": b"x", b"origin": b"http://ui.example"}, False),
    "any page": (("*",), {b"host": b"localhost", b"origin": PAGE}, True),
    "any page, even without origin": (("*",), {b"host": b"localhost", b"origin": b"null"}, True),
    "an image of another site": ((), {b"host": b"localhost", b"sec-fetch-site": b"cross-site"}, False),
    "an image of another port": ((), {b"host": b"localhost", b"sec-fetch-site": b"same-site"}, False),
    "our own image": ((), {b"host": b"localhost", b"sec-fetch-site": b"same-origin"}, True),
    "typed by a person": ((), {b"host": b"localhost", b"sec-fetch-site": b"none"}, True),
    "an image, any page": (("*",), {b"host": b"localhost", b"sec-fetch-site": b"cross-site"}, True),
    "a link": ((), {b"host": b"x", b"sec-fetch-site": b"cross-site", b"sec-fetch-dest": b"document"}, False),
}


@pytest.mark.parametrize("case", PAGES)
def test_page(case: str):
    allowed, fields, is_answered = PAGES[case]
    refusal = Guard("ingress", origins=Origins(allowed)).refusal(fields)
    assert (refusal is None) is is_answered
    assert refusal is None or refusal.status == 403


def test_where_a_get_changes_nothing_links_may_be_followed():
    guard = Guard("admin", origins=Origins(allow_links=True))
    link = {b"host": b"localhost", b"sec-fetch-site": b"cross-site", b"sec-fetch-dest": b"document"}
    assert guard.refusal(link) is None
    # A form of another page names its origin, a frame is no document.
    for other in ({**link, b"origin": PAGE}, {**link, b"sec-fetch-dest": b"iframe"}):
        assert guard.refusal(other) is not None


def test_a_token_is_asked_for_as_http_wants_it():
    guard = Guard("ingress", origins=Origins(), tokens=TokenGate("ingress", fixed=SECRET))
    missing = guard.refusal({})
    wrong = guard.refusal({b"authorization": b"Bearer nope"})
    assert missing is not None
    assert wrong is not None
    assert (missing.status, missing.headers) == (401, ((b"www-authenticate", b'Bearer realm="holdfast ingress"'),))
    [(_, challenge)] = wrong.headers
    assert challenge == b'Bearer realm="holdfast ingress", error="invalid_token"'
    assert guard.refusal({b"authorization": f"Bearer {SECRET}".encode()}) is None


def test_a_token_does_not_help_a_page_that_is_not_allowed():
    guard = Guard("ingress", origins=Origins(), tokens=TokenGate("ingress", fixed=SECRET))
    refusal = guard.refusal({b"origin": PAGE, b"authorization": f"Bearer {SECRET}".encode()})
    assert refusal is not None
    assert refusal.status == 403


def test_where_tokens_are_asked_for_any_name_will_do():
    guard = Guard("ingress", origins=Origins(), tokens=TokenGate("ingress", fixed=SECRET), hosts=[])
    assert guard.refusal({b"host": b"engine.example", b"authorization": f"Bearer {SECRET}".encode()}) is None
    refusal = guard.refusal({b"host": b"engine.example"})
    assert refusal is not None
    assert refusal.status == 401


LOOPBACK = {
    "127.0.0.1": True,
    "127.9.9.9": True,
    "::1": True,
    "localhost": True,
    "0.0.0.0": False,
    "::": False,
    "10.0.0.1": False,
    "192.0.2.1": False,
    "no-such-name.invalid": False,
}


@pytest.mark.parametrize("host", LOOPBACK)
def test_loopback(host: str):
    assert is_loopback(host) is LOOPBACK[host]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_other_machines_are_let_in_with_tokens_only(host: str):
    with pytest.raises(UnsafeAddress, match=f"other machines could reach the admin on {host}") as refusal:
        check_exposure(host, TokenGate("admin"), make_one="like this", insecure=False, has_tls=True)
    assert refusal.value.hint.startswith("make one: like this; or listen on 127.0.0.1; ")
    assert refusal.value.hint.endswith(" --insecure")
    gate = TokenGate("admin", fixed=SECRET)
    assert check_exposure(host, gate, make_one="", insecure=False, has_tls=True) is None
    assert not gate.admits(None)


def test_or_where_somebody_takes_the_blame():
    gate = TokenGate("admin")
    warning = check_exposure("0.0.0.0", gate, make_one="", insecure=True, has_tls=True)
    assert warning == "everybody who can reach 0.0.0.0 may use the admin"
    assert gate.admits(None)


def test_insecure_opens_nothing_that_has_tokens():
    gate = TokenGate("admin", fixed=SECRET)
    check_exposure("0.0.0.0", gate, make_one="", insecure=True, has_tls=True)
    assert not gate.admits(None)


@pytest.mark.parametrize(
    ("host", "has_tls", "is_warned"), [("0.0.0.0", False, True), ("0.0.0.0", True, False), ("127.0.0.1", False, False)]
)
def test_tokens_in_clear_text_are_worth_a_word(host: str, has_tls: bool, is_warned: bool):
    gate = TokenGate("admin", fixed=SECRET)
    warning = check_exposure(host, gate, make_one="", insecure=False, has_tls=has_tls)
    assert (warning is not None and "travel unencrypted" in warning) is is_warned
