"""What must hold of a history, whatever was killed when."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import apsw

Entry = dict[str, Any]


class Steps:
    """The executions of all steps, as the ledger has them."""

    def __init__(self, ledger: Iterable[Entry]) -> None:
        self.executions: defaultdict[tuple[str, int], list[Entry]] = defaultdict(list)
        self._order: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
        for position, entry in enumerate(ledger):
            if entry["what"] == "step":
                self.executions[entry["u"], entry["step"]].append(entry)
                self._order[entry["u"]].append((position, entry["step"]))

    @property
    def repeated(self) -> int:
        """How many steps were executed again because a kill came before their result was stored."""
        return sum(len(entries) > 1 for entries in self.executions.values())

    def check_sequence(self, u: str, values: list[str]) -> None:
        """`values` are what the steps of `u` returned, which ran one after the other."""
        for step, value in enumerate(values):
            self.check(u, step, value)
        # A step starts when the result of the one before is stored; from then on that one never runs again.
        reached = -1
        for _, step in self._order[u]:
            assert step >= reached, f"step {step} of {u} was executed after step {reached} had started"
            reached = max(reached, step)

    def check(self, u: str, step: int, value: str) -> None:
        """The result of a step is what its last execution returned; a process executes it once at most."""
        entries = self.executions[u, step]
        assert entries, f"step {step} of {u} has a result and was never executed"
        assert entries[-1]["value"] == value, f"step {step} of {u} was executed after its result was stored"
        per_process = Counter(entry["pid"] for entry in entries)
        assert max(per_process.values()) == 1, f"step {step} of {u} ran twice in one process: {entries}"


def check_database(path: Path) -> None:
    """The rows of a database at rest agree with each other. Call it when no engine has the file open."""
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        assert connection.pragma("integrity_check") == "ok"
        for table in ("timer", "journal", "journal_event"):
            lost = connection.execute(
                f"SELECT count(*) FROM {table} t WHERE NOT EXISTS (SELECT 1 FROM invocation i WHERE i.seq = t.seq)"
            ).get
            assert lost == 0, f"{lost} rows of {table} belong to no invocation"
        over = connection.execute(
            "SELECT count(*) FROM timer t JOIN invocation i USING (seq) WHERE i.status = 'completed'"
        ).get
        assert over == 0, f"{over} timers of completed invocations"
        following: defaultdict[int, int] = defaultdict(int)
        heads = dict(connection.execute("SELECT seq, length(head) > 0 FROM invocation"))
        for seq, first, count, length in connection.execute(
            "SELECT seq, first_index, entry_count, length(frames) FROM journal ORDER BY seq, first_index"
        ):
            expected = following[seq] or int(heads[seq])
            assert first == expected, f"invocation {seq}: entry {expected} is missing before entry {first}"
            assert count > 0
            assert length >= 8 * count, "an entry is shorter than its header"
            following[seq] = first + count
    finally:
        connection.close()
