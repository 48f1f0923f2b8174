"""The demo's input, and the scanner that signs and sends it."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from nacl.signing import SigningKey

from apps.recon.demo_tally import Tally, count
from apps.recon.envelope import seal
from apps.recon.generator import naabu_scan
from apps.serving.demo import DemoFailed

DATA = Path(__file__).parent / "data"

# So many requests at once, and so many accepted jobs not yet finished: enough to have dozens of workflows in the middle
# of something when the engine is killed, little enough that jobs finish all the time instead of all at the end.
_REQUESTS_AT_ONCE = 8
UNFINISHED_MAX = 64


@dataclass(slots=True)
class Item:
    """One scan to submit."""

    name: str
    text: str
    tally: Tally


def real_items() -> list[Item]:
    """Every file under `data/`."""
    paths = sorted(path for path in DATA.glob("*/*") if path.suffix in (".json", ".jsonl", ".xml"))
    return [
        Item(f"{path.parent.name}/{path.name}", text, count(text)) for path in paths for text in (path.read_text(),)
    ]


def generated_items(how_many: int, seed: int) -> list[Item]:
    """Made-up scans: mostly small ones, and now and then one big enough for several persist steps."""
    rng = random.Random(seed)  # noqa: S311 - repeatable, not secret
    items: list[Item] = []
    for number in range(how_many):
        host_count = 300 if number % 50 == 49 else rng.randint(4, 30)
        text = naabu_scan(f"{seed}/{number}", host_count)
        items.append(Item(f"generated/{number}", text, count(text)))
    return items


def workload(job_count: int, seed: int) -> list[Item]:
    """Real scans first come, generated ones for the rest, in an order that the seed decides."""
    real = real_items()[:job_count]
    items = real + generated_items(job_count - len(real), seed)
    random.Random(seed).shuffle(items)  # noqa: S311
    return items


@dataclass
class Scanner:
    """Submits every item once, and again whenever an answer did not come: as a real scanner would."""

    items: Iterable[Item]
    unfinished_max: int = UNFINISHED_MAX
    """Under way at the same time: accepted, and not yet told to be `finished`."""
    accepted: dict[str, Item] = field(default_factory=dict[str, Item])
    """By job id, as answered."""
    resent_count: int = 0
    """Submissions that were repeated because the connection broke."""

    def __post_init__(self) -> None:
        self._key = SigningKey.generate()
        self._queue = iter(self.items)
        self._room = asyncio.Semaphore(self.unfinished_max)
        self._is_up = asyncio.Event()
        self._url = ""

    def up(self, url: str) -> None:
        """The API answers at `url` (again)."""
        self._url = url
        self._is_up.set()

    def down(self) -> None:
        """The API is gone; wait for `up` before the next try."""
        self._is_up.clear()

    def finished(self, job_count: int) -> None:
        """So many more jobs are done: make room for new ones."""
        for _ in range(job_count):
            self._room.release()

    async def run(self) -> None:
        """Returns when every item is accepted.

        Raises:
            DemoFailed: an answer other than 202, or one job id for two items.
        """
        async with httpx.AsyncClient(timeout=30) as http, asyncio.TaskGroup() as group:
            for _ in range(_REQUESTS_AT_ONCE):
                group.create_task(self._work(http))

    async def _work(self, http: httpx.AsyncClient) -> None:
        for item in self._queue:
            await self._room.acquire()
            job_id = await self._submit(http, item)
            if job_id in self.accepted:
                raise DemoFailed(f"{item.name} and {self.accepted[job_id].name} were both accepted as job {job_id}")
            self.accepted[job_id] = item

    async def _submit(self, http: httpx.AsyncClient, item: Item) -> str:
        # Sealed once: the same envelope again is the same job, however often it is sent.
        body = seal(item.text, self._key, timestamp_s=int(time.time()))
        while True:
            await self._is_up.wait()
            url = self._url
            try:
                answer = await http.post(f"{url}/v1/mesh/ingest", content=body)
            except httpx.TransportError as error:
                self.resent_count += 1
                if self._is_up.is_set() and self._url == url:
                    raise DemoFailed(f"{url} does not answer: {error!r}") from error
                continue
            if answer.status_code != 202:
                raise DemoFailed(f"{item.name} was answered with {answer.status_code}: {answer.text}")
            return answer.json()["job_id"]
