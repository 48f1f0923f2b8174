"""Comparing versions as vulnerability records mean it: 2.2.9 < 2.2.22, 1.0.0-rc1 < 1.0.0 < 1.0.0p1. Pure."""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import zip_longest

_TOKEN = re.compile(r"\d+|[a-z]+")
_BEFORE_RELEASE = {"dev": 0, "alpha": 1, "a": 1, "beta": 2, "b": 2, "pre": 3, "preview": 3, "rc": 4}

# Kinds, in their order: a pre-release word, the end of the version, a word, a number.
_PRE, _END, _WORD, _NUMBER = range(4)
_Token = tuple[int, int, str]
_FINISHED: _Token = (_END, 0, "")


def compare_versions(left: str, right: str) -> int:
    """-1, 0 or 1: is `left` the older one, the same, or the newer one?

    Numbers compare as numbers, and missing ones at the end as zero (`7` is `7.0`). A letter is later than nothing
    (`1.0.2` < `1.0.2a`), the words of a pre-release are earlier (`2.0-rc1` < `2.0`, `2.0b1` < `2.0`).
    """
    for one, other in zip_longest(_tokens(left), _tokens(right), fillvalue=_FINISHED):
        if one != other:
            return -1 if one < other else 1
    return 0


@lru_cache(maxsize=4096)
def _tokens(version: str) -> tuple[_Token, ...]:
    words: list[str] = _TOKEN.findall(version.lower().removeprefix("v"))
    tokens: list[_Token] = []
    for word, following in zip_longest([*words, ""], words[1:]):
        if not word.isdigit():
            while tokens and tokens[-1] == (_NUMBER, 0, ""):  # 7.0 is 7, and 7.0-rc1 is 7-rc1
                tokens.pop()
        if word:
            tokens.append(_token(word, following))
    return tuple(tokens)


def _token(word: str, following: str | None) -> _Token:
    if word.isdigit():
        return (_NUMBER, int(word[:18]), "")
    # `a` and `b` alone are letters of a release, as in OpenSSL's 1.0.2a; with a number behind they are alpha and beta.
    if word in _BEFORE_RELEASE and (len(word) > 1 or (following or "").isdigit()):
        return (_PRE, _BEFORE_RELEASE[word], "")
    return (_WORD, 0, word)
