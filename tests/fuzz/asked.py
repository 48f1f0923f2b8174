"""A property and what it is asked of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st


@dataclass(frozen=True, slots=True)
class Asked:
    """Ready: whatever must run for it runs."""

    inputs: st.SearchStrategy[Any]
    holds: Callable[[Any], object]
    """Raises when it does not hold."""
