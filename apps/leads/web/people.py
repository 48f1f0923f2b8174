"""Who runs a business, by what its own pages say: structured data, imprints, contact and about pages. Pure.

Only names that a page publishes as responsible for the business are taken; a name alone, without such a role, never.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from apps.leads.web.document import Document
from apps.leads.web.structured import Item, people
from apps.leads.web.types import OwnerCandidate

CANDIDATES_MAX = 10

# Label on the page -> (role, how sure a name after it is the owner's). Longest first: the first that fits is taken.
_ROLES: tuple[tuple[str, str, float], ...] = (
    (r"owner\s*(?:&|and|/)\s*founder|founder\s*(?:&|and|/)\s*(?:owner|ceo)", "owner", 0.9),
    (r"propri[ée]taire[- ]g[ée]rant(?:e)?|eigenaar\s*[/-]\s*zaakvoerder", "owner", 0.9),
    (r"(?:business |shop )?owner(?:ed by)?|owned (?:and (?:operated|run) )?by|proprietor", "owner", 0.9),
    (r"propri[ée]taires?|eigenaar|eigenaresse|inhaber(?:in)?|gesch[äa]ftsinhaber(?:in)?", "owner", 0.9),
    ((r"(?:co-?)?founder|founded by|(?:co-?)?fondateur|(?:co-?)?fondatrice|fond[ée]e? par|oprichter|oprichtster|opgericht door|"
     r"gr[üu]nder(?:in)?|gegr[üu]ndet von"), "founder", 0.85),
    ((r"managing director|zaakvoerder|zaakvoerster|g[ée]rante?|gesch[äa]ftsf[üu]hrer(?:in)?|gesch[äa]ftsf[üu]hrung|"
     r"gesch[äa]ftsleitung|bedrijfsleid(?:er|ster)"), "director", 0.8),
    ((r"ceo|chief executive(?: officer)?|directeur(?: g[ée]n[ée]ral)?|directrice|directeur-eigenaar|bestuurder|"
     r"vertreten durch|vertretungsberechtigt(?:er?)?"), "director", 0.75),
    ((r"directeur de la publication|responsable de (?:la )?publication|directrice de la publication|"
     r"verantwoordelijke uitgever|verantwortlich(?:e[rn]?)?(?: f[üu]r den inhalt)?(?: (?:nach|i\.?s\.?d\.?|gem[äa][ßs]+)[^:]{0,40})?|"
     r"[ée]diteur responsable|responsible (?:for content|publisher)"), "responsible", 0.7),
)  # fmt: skip
_NAME_WORD = r"(?:[A-ZÀ-ÖØ-Ý][a-zà-öø-ÿ'’]+(?:-[A-ZÀ-ÖØ-Ý][a-zà-öø-ÿ'’]+)*|[A-ZÀ-ÖØ-Ý]\.|[OD]['’][A-ZÀ-Ý][a-zà-ÿ]+|Mc[A-Z][a-z]+)"
_PARTICLE = r"(?:van|von|de|der|den|du|del|la|le|ter|ten|zu|zur|di|da|dos|el|al|Van|Von|De|Der|Den|Du|Le|La)"
_TITLE = r"(?:Mr\.?|Mrs\.?|Ms\.?|Dr\.?|Prof\.?|Herr|Frau|Monsieur|Madame|M\.|Mme\.?|Dhr\.?|De heer|Mevr?\.?|Mevrouw|Ing\.?|Ir\.?)"
_NAME = rf"(?:{_TITLE}\s+)*({_NAME_WORD}(?:\s+(?:{_PARTICLE}\s+){{0,2}}{_NAME_WORD}){{1,3}})"
_AFTER: tuple[tuple[re.Pattern[str], str, float], ...] = tuple(
    (
        re.compile(
            rf"(?:^|[^\w])(?i:{label})\s*(?:\([^)]{{0,30}}\))?\s*(?:[:–|,-]|(?i:is|was|ist|est|by|:)|\s)\s*{_NAME}"
        ),
        role,
        sure,
    )
    for label, role, sure in _ROLES
)
_BEFORE: tuple[tuple[re.Pattern[str], str, float], ...] = tuple(
    (
        re.compile(
            rf"{_NAME}\s*(?:[,(–|-]|(?i:is|was|ist|est)(?:\s+(?i:the|our|de|onze|le|la|der|die))?)\s*(?i:{label})(?!\w)"
        ),
        role,
        sure,
    )
    for label, role, sure in _ROLES
)
_LABEL_ONLY: tuple[tuple[re.Pattern[str], str, float], ...] = tuple(
    (re.compile(rf"(?i:{label})\s*(?:\([^)]{{0,30}}\))?\s*:?"), role, sure) for label, role, sure in _ROLES
)
_WHOLE_NAME = re.compile(_NAME)
_ANY_ROLE = re.compile("|".join(label for label, _, _ in _ROLES), re.IGNORECASE)
# Capitalised words that follow a role and are no name.
_NO_NAME = frozenset(
    ["contact", "about", "home", "our", "the", "your", "company", "business", "services", "service", "team", "email", "e-mail", "phone", "telephone", "address", "street", "website", "privacy", "policy", "terms", "read", "more", "impressum", "imprint", "copyright", "rights", "reserved", "gmbh", "ltd", "limited", "inc", "llc", "bvba", "bv", "nv", "sprl", "srl", "sa", "sarl", "telefon", "telefax", "adresse", "kontakt", "tel", "fax", "monday", "operated", "family", "history", "local", "professional", "home", "page", "click", "here", "general", "manager", "director", "sales", "customer", "support", "vat", "btw", "tva", "siret", "rcs", "kbo", "handelsregister", "amtsgericht", "registergericht", "umsatzsteuer", "dear", "welcome"]
)  # fmt: skip
_PAGE_SURENESS = {"legal": 1.0, "about": 0.95, "contact": 0.9, "home": 0.85, "services": 0.8, "booking": 0.8}
_STRUCTURED_ROLES = {
    "owner": 0.95,
    "founder": 0.95,
    "director": 0.85,
    "author": 0.4,
    "creator": 0.4,
    "employee": 0.3,
    "member": 0.3,
}


def is_person_name(text: str) -> bool:
    """Two to five capitalised words, none of them a word of the trade."""
    match = _WHOLE_NAME.fullmatch(text.strip())
    return match is not None and not any(word.strip(".,").lower() in _NO_NAME for word in text.split())


def role_of(text: str) -> tuple[str, float] | None:
    """(role, sureness) of a job title or property name."""
    for pattern, role, sure in _LABEL_ONLY:
        if pattern.match(text.strip()):
            return role, sure
    return None


def candidates_in_items(items: list[Item], page_url: str) -> list[OwnerCandidate]:
    """Persons that structured data names."""
    found: list[OwnerCandidate] = []
    for name, label in people(items):
        known = role_of(label)
        role = known[0] if known else label.lower()[:40]
        sure = _STRUCTURED_ROLES.get(role, 0.7 if known else 0.3)
        if is_person_name(name):
            found.append(OwnerCandidate(name.strip(), role, "structured", page_url, sure))
    return found


def candidates_in_text(document: Document, page_kind: str) -> list[OwnerCandidate]:
    """Names that stand beside a role: `Geschäftsführer: Jan Peeters`, `Jan Peeters, owner`, label and name on two lines."""
    source = f"{page_kind}_page"
    weight = _PAGE_SURENESS.get(page_kind, 0.8)
    found: list[OwnerCandidate] = []

    def add(name: str, role: str, sure: float) -> None:
        if is_person_name(name):
            found.append(OwnerCandidate(name.strip(), role, source, document.url, round(sure * weight, 2)))

    lines = document.lines[:3_000]
    for index, line in enumerate(lines):
        if _ANY_ROLE.search(line) is None:
            continue
        for part in re.split(r"(?<=[a-zà-ÿ]{3}[.!?])\s", line[:1_000]):
            for pattern, role, sure in _AFTER:
                if match := pattern.search(part):
                    add(match[1], role, sure)
                    break
            else:
                for pattern, role, sure in _BEFORE:
                    if match := pattern.search(part):
                        add(match[1], role, sure)
                        break
        following = lines[index + 1] if index + 1 < len(lines) else ""
        if len(line) < 90 and (match := _WHOLE_NAME.fullmatch(following.strip(" ,;"))):
            for pattern, role, sure in _LABEL_ONLY:
                if pattern.fullmatch(line.strip()):
                    add(match[1], role, sure - 0.05)
                    break
    return found


def rank(candidates: Iterable[OwnerCandidate]) -> list[OwnerCandidate]:
    """One per name, surest first. A name that a second page confirms is a little surer."""
    best: dict[str, OwnerCandidate] = {}
    pages: dict[str, set[str]] = {}
    for one in candidates:
        key = " ".join(one.name.lower().split())
        pages.setdefault(key, set()).add(f"{one.page_url} {one.source == 'structured'}")
        if key not in best or one.confidence > best[key].confidence:
            best[key] = one
    ranked = [
        OwnerCandidate(
            one.name,
            one.role,
            one.source,
            one.page_url,
            min(0.99, round(one.confidence + 0.03 * (len(pages[key]) - 1), 2)),
        )
        for key, one in best.items()
    ]
    return sorted(ranked, key=lambda one: (-one.confidence, one.name))[:CANDIDATES_MAX]
