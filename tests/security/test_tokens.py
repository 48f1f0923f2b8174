"""Tokens: what the file holds, who passes the gate, and that nothing opens it by accident."""

from __future__ import annotations

import hashlib
import json
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import InvalidRequest, InvalidSetting
from holdfast.security.tokens import Scope, TokenFile, TokenGate, tokens_path

DAY_MS = 86_400_000


class Clock:
    """The time, where the test wants it."""

    def __init__(self) -> None:
        self.now_ms = 1_000_000

    def __call__(self) -> int:
        return self.now_ms


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def file(tmp_path: Path, clock: Clock) -> TokenFile:
    return TokenFile(tmp_path / "app.db.tokens", now_ms=clock)


def gate_of(file: TokenFile, clock: Clock, scope: Scope = "admin", fixed: str | None = None) -> TokenGate:
    return TokenGate(scope, file, fixed=fixed, now_ms=clock)


def bearer(secret: str) -> bytes:
    return f"Bearer {secret}".encode()


# ---- the file --------------------------------------------------------------------------------------------------------


def test_it_is_beside_the_database():
    assert tokens_path("some/app.db") == Path("some/app.db.tokens")


def test_only_a_hash_is_kept(file: TokenFile):
    token, secret = file.create("admin", "ci")
    content = file.path.read_text()
    assert secret not in content
    assert secret.removeprefix("hf_admin_") not in content
    assert token.sha256 == hashlib.sha256(secret.encode()).hexdigest()
    assert token.sha256 in content


def test_a_secret_is_random_and_names_its_api(file: TokenFile):
    secrets = {file.create(scope)[1] for scope in ("ingress", "admin") for _ in range(20)}
    assert len(secrets) == 40
    # 32 bytes in base64 without padding.
    assert all(len(secret.split("_", 2)[2]) == 43 for secret in secrets)
    assert {secret.rpartition("_")[0].split("_")[1] for secret in secrets} >= {"ingress", "admin"}


def test_only_its_owner_may_read_it(file: TokenFile):
    file.create("admin")
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600


@pytest.mark.parametrize("mode", [0o644, 0o620, 0o606, 0o666])
def test_a_file_that_others_could_have_written_is_refused(file: TokenFile, mode: int):
    file.create("admin")
    file.path.chmod(mode)
    with pytest.raises(InvalidSetting, match=f"others may have written .* \\(mode {mode:o}") as refusal:
        file.tokens()
    assert refusal.value.hint.endswith(f"chmod 600 {file.path}")


def test_what_was_made_and_revoked_stays_on_record(file: TokenFile, clock: Clock):
    first, _ = file.create("admin", "ci", expires_in_ms=DAY_MS)
    clock.now_ms += 5
    file.revoke("ci")
    second, _ = file.create("admin", "ci")
    [old, new] = file.tokens()
    assert (old.id, old.name, old.expires_at_ms, old.revoked_at_ms) == (first.id, "ci", 1_000_000 + DAY_MS, 1_000_005)
    assert (new.id, new.revoked_at_ms) == (second.id, None)


def test_names_of_usable_tokens_differ(file: TokenFile):
    file.create("admin", "ci")
    with pytest.raises(InvalidRequest, match="there is a token called 'ci' already"):
        file.create("ingress", "ci")


@pytest.mark.parametrize("name", ["", " ", "a b", "a/b", "ü", "x" * 65, "-x", "a\n"])
def test_names_are_plain(file: TokenFile, name: str):
    with pytest.raises(InvalidRequest, match="is no name for a token"):
        file.create("admin", name)
    assert not file.path.exists()


def test_revoking_what_is_not_there(file: TokenFile):
    with pytest.raises(InvalidRequest, match="there is no token 'nope'"):
        file.revoke("nope")


def test_revoking_twice_changes_nothing(file: TokenFile, clock: Clock):
    token, _ = file.create("admin")
    file.revoke(token.id)
    content = file.path.read_bytes()
    clock.now_ms += 1
    file.revoke(token.id)
    assert file.path.read_bytes() == content


@pytest.mark.parametrize(
    "line",
    [
        b"x",
        b"[]",
        b"{}",
        b'{"revoke":"tok_unknown","at_ms":1}',
        b'{"create":"t","name":"n","scope":"other","sha256":"' + b"00" * 32 + b'","at_ms":1,"expires_at_ms":null}',
        b'{"create":"t","name":"n","scope":"admin","sha256":"00","at_ms":1,"expires_at_ms":null}',
        b'{"create":"t","name":"n","scope":"admin","sha256":"' + b"00" * 32 + b'","at_ms":1}',
        b"\xff",
    ],
)
def test_a_damaged_line_is_never_skipped(file: TokenFile, line: bytes):
    file.create("admin")
    with file.path.open("ab") as raw:
        raw.write(b"\n" + line + b"\n")
    with pytest.raises(InvalidSetting, match=r"line 4 of the tokens file .* is damaged"):
        file.tokens()


@given(st.binary(max_size=300))
def test_any_bytes_are_tokens_or_refused(content: bytes):
    file = TokenFile("unused")
    tokens: dict[str, object] = {}
    for number, line in enumerate(content.splitlines(), start=1):
        with suppress(InvalidSetting):
            file._apply(tokens, line, number)  # type: ignore[arg-type]


def test_a_line_cut_off_by_a_crash_damages_only_itself(file: TokenFile):
    file.create("admin")
    whole = file.path.read_bytes()
    file.path.write_bytes(whole + b'{"revoke": "tok')
    with pytest.raises(InvalidSetting):
        file.tokens()
    lines = file.path.read_bytes().splitlines()
    file.path.write_bytes(b"\n".join(line for line in lines if line.endswith(b"}")))
    assert len(file.tokens()) == 1


def test_a_place_that_cannot_be_written(tmp_path: Path):
    with pytest.raises(InvalidSetting, match="cannot be written: No such file or directory"):
        TokenFile(tmp_path / "nowhere" / "app.db.tokens").create("admin")


# ---- the gate --------------------------------------------------------------------------------------------------------


def test_without_tokens_it_is_open(file: TokenFile, clock: Clock):
    gate = gate_of(file, clock)
    assert (gate.is_closed, gate.usable(), gate.admits(None)) == (False, 0, True)


def test_with_a_token_it_admits_that_token_only(file: TokenFile, clock: Clock):
    _, secret = file.create("admin")
    gate = gate_of(file, clock)
    assert gate.usable() == 1
    for header in (bearer(secret), f"bearer  {secret} ".encode(), f"BEARER {secret}".encode()):
        assert gate.admits(header), header
    for header in (
        None,
        b"",
        b"Bearer",
        b"Bearer ",
        secret.encode(),
        f"Basic {secret}".encode(),
        f"Bearer{secret}".encode(),
        bearer(secret[:-1]),
        bearer(secret + "x"),
        bearer(secret.lower()),
        bearer(file.tokens()[0].sha256),
        b"Bearer \xff\x00",
    ):
        assert not gate.admits(header), header


def test_each_api_has_its_own(file: TokenFile, clock: Clock):
    secrets: dict[Scope, str] = {scope: file.create(scope)[1] for scope in ("ingress", "admin")}
    gates: dict[Scope, TokenGate] = {scope: gate_of(file, clock, scope) for scope in ("ingress", "admin")}
    admitted = {(of, by) for of, secret in secrets.items() for by, gate in gates.items() if gate.admits(bearer(secret))}
    assert admitted == {("ingress", "ingress"), ("admin", "admin")}


def test_an_admin_token_does_not_close_the_ingress(file: TokenFile, clock: Clock):
    file.create("admin")
    assert gate_of(file, clock, "ingress").admits(None)


def test_a_token_expires(file: TokenFile, clock: Clock):
    _, secret = file.create("admin", expires_in_ms=1_000)
    gate = gate_of(file, clock)
    clock.now_ms += 999
    assert gate.admits(bearer(secret))
    clock.now_ms += 1
    assert not gate.admits(bearer(secret))
    assert gate.usable() == 0


Change = Callable[[TokenFile], object]
AFTER_WHICH_NOBODY_PASSES: dict[str, Change] = {
    "revoked": lambda file: file.revoke(file.tokens()[0].id),
    "the file is gone": lambda file: file.path.unlink(),
    "the file is empty": lambda file: file.path.write_bytes(b""),
    "the file is damaged": lambda file: file.path.write_bytes(b"{"),
    "others may write the file": lambda file: file.path.chmod(0o666),
    "the file is a directory": lambda file: (file.path.unlink(), file.path.mkdir()),
}


@pytest.mark.parametrize("change", AFTER_WHICH_NOBODY_PASSES.values(), ids=AFTER_WHICH_NOBODY_PASSES.keys())
def test_an_api_that_asks_for_tokens_goes_on_asking(file: TokenFile, clock: Clock, change: Change):
    _, secret = file.create("admin")
    gate = gate_of(file, clock)
    assert gate.admits(bearer(secret))
    change(file)
    gate.look()
    assert not gate.admits(bearer(secret))
    assert not gate.admits(None)


def test_a_token_made_while_the_engine_runs_closes_the_gate_and_opens_it_to_its_owner(file: TokenFile, clock: Clock):
    gate = gate_of(file, clock)
    assert gate.admits(None)
    _, secret = file.create("admin")
    gate.look()
    assert not gate.admits(None)
    assert gate.admits(bearer(secret))


def test_after_a_restart_a_revoked_token_still_closes_the_gate(file: TokenFile, clock: Clock):
    token, secret = file.create("admin")
    file.revoke(token.id)
    gate = gate_of(file, clock)
    assert (gate.is_closed, gate.usable(), gate.admits(bearer(secret)), gate.admits(None)) == (True, 0, False, False)


def test_a_file_that_cannot_be_used_stops_the_start(file: TokenFile, clock: Clock):
    file.create("admin")
    file.path.chmod(0o644)
    with pytest.raises(InvalidSetting):
        gate_of(file, clock)


def test_a_fixed_token_counts_beside_those_of_the_file(file: TokenFile, clock: Clock):
    _, secret = file.create("admin")
    fixed = "0123456789abcdef" * 2
    gate = gate_of(file, clock, fixed=fixed)
    assert gate.usable() == 2
    file.path.write_text("damaged")
    gate.look()
    assert not gate.admits(bearer(secret))
    assert gate.admits(bearer(fixed))


def test_a_fixed_token_that_could_be_guessed_is_refused(clock: Clock):
    with pytest.raises(InvalidSetting, match="has 8 characters, fewer than 32") as refusal:
        TokenGate("admin", fixed="hunter22", now_ms=clock)
    assert "hunter22" not in refusal.value.message + refusal.value.hint


@pytest.mark.parametrize("around", ["{}\n", " {}", "{} "])
def test_a_fixed_token_that_nobody_could_send_is_refused(clock: Clock, around: str):
    secret = "0123456789abcdef0123456789abcdef"
    with pytest.raises(
        InvalidSetting, match="the admin token of the environment begins or ends with a blank"
    ) as refusal:
        TokenGate("admin", fixed=around.format(secret), now_ms=clock)
    assert secret not in refusal.value.message + refusal.value.hint


def test_the_file_is_read_again_only_when_it_has_changed(
    file: TokenFile, clock: Clock, monkeypatch: pytest.MonkeyPatch
):
    _, secret = file.create("admin")
    gate = gate_of(file, clock)
    reads: list[None] = []
    read = file.tokens
    monkeypatch.setattr(file, "tokens", lambda: (reads.append(None), read())[1])
    for _ in range(10):
        gate.look()
    assert len(reads) == 0
    file.create("admin")
    reads.clear()
    for _ in range(10):
        gate.look()
    assert len(reads) == 1
    assert gate.admits(bearer(secret))


def test_lines_are_json_that_a_person_can_read(file: TokenFile):
    token, _ = file.create("ingress", "web", expires_in_ms=10)
    [line] = [line for line in file.path.read_text().splitlines() if line]
    assert json.loads(line) == {
        "create": token.id,
        "name": "web",
        "scope": "ingress",
        "sha256": token.sha256,
        "at_ms": 1_000_000,
        "expires_at_ms": 1_000_010,
    }
