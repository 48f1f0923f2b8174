"""The SQL of `generator`: the state of the made-up register, and the rows that follow from it.

State is one line per enterprise and per establishment: when it began and ended, and in which extract each kind of its
rows was last changed. The rows themselves follow from number, seed and that extract: they are never stored.
"""

from __future__ import annotations

from dataclasses import dataclass

# ruff: noqa: S608 all text is from this module, and shares are formatted as numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What an update does, as shares of the living enterprises. Establishments follow theirs."""

    ceased: float = 0.004
    renamed: float = 0.006
    moved: float = 0.006
    other_activities: float = 0.01
    other_contacts: float = 0.003
    other_form: float = 0.002
    added: float = 0.005


def _words(text: str) -> str:
    return "[" + ", ".join(f"'{word}'" for word in text.split("|")) + "]"


_FIRST = _words("Bakkerij|Garage|Atelier|Boulangerie|Studio|Groep|Maison|Bouwwerken|Tuinen|Transports|Café|Apotheek")
_SECOND = _words("De Linde|Van Acker|du Parc|Noord|Lumière|''t Hof|De Brug|des Alpes|Zuid|Saint-Roch|Central|Böhm")
_SURNAMES = _words("Peeters|Janssens|Maes|Jacobs|Mertens|Willems|Claes|Goossens|Wouters|Dubois|Lambert|Dupont|Martin")
_GIVEN = _words("An|Jan|Marie|Luc|Els|Pierre|Sofie|Koen|Nadia|Thomas|Laura|Youssef|Griet|Bart")
_STREETS_NL = _words(
    "Kerkstraat|Stationsstraat|Molenstraat|Dorpsstraat|Nieuwstraat|Schoolstraat|Kapelstraat|Leuvenstraat"
)
_STREETS_FR = _words(
    "Rue de l’Église|Rue de la Gare|Rue du Moulin|Grand-Rue|Rue Neuve|Rue de l’École|Rue Haute|Chaussée"
)
_ZIPCODES = _words("1000|2000|3000|4000|5000|6000|7000|8000|8500|9000")
_PLACES_NL = _words("Brussel|Antwerpen|Leuven|Luik|Namen|Charleroi|Bergen|Brugge|Kortrijk|Gent")
_PLACES_FR = _words("Bruxelles|Anvers|Louvain|Liège|Namur|Charleroi|Mons|Bruges|Courtrai|Gand")
_FORMS = _words("610|610|610|612|017|014|612|706")

SETUP = (
    # Multiplications modulo a prime with shifts between them: the same in every version of DuckDB, unlike hash().
    """CREATE MACRO mixed(x, salt) AS xor(
        (x * 2654435761 + salt * 97531 + getvariable('seed')) % 2147483647,
        ((x * 2654435761 + salt * 97531 + getvariable('seed')) % 2147483647) >> 13)""",
    "CREATE MACRO draw(x, salt) AS xor(mixed(x, salt) * 1274126177 % 2147483647, mixed(x, salt) * 1274126177 % 2147483647 >> 16)",
    "CREATE MACRO chosen(x, salt, share) AS draw(x, salt) % 1000000 < share * 1000000",
    "CREATE MACRO word(list, x, salt) AS list[1 + draw(x, salt) % len(list)]",
    "CREATE MACRO digits(eight) AS lpad(eight::VARCHAR, 8, '0') || lpad((97 - eight % 97)::VARCHAR, 2, '0')",
    "CREATE MACRO enterprise_number(eight) AS digits(eight)[1:4] || '.' || digits(eight)[5:7] || '.' || digits(eight)[8:10]",
    """CREATE MACRO establishment_number(eight) AS
        digits(eight)[1:1] || '.' || digits(eight)[2:4] || '.' || digits(eight)[5:7] || '.' || digits(eight)[8:10]""",
    """CREATE TABLE enterprise_state (
        i BIGINT, number VARCHAR, is_legal BOOLEAN, began INTEGER, ended INTEGER,
        form INTEGER, name INTEGER, address INTEGER, activity INTEGER, contact INTEGER)""",
    """CREATE TABLE establishment_state (
        i BIGINT, number VARCHAR, enterprise BIGINT, enterprise_number VARCHAR, began INTEGER, ended INTEGER,
        name INTEGER, address INTEGER, activity INTEGER, contact INTEGER)""",
)

_ADD = [
    """INSERT INTO enterprise_state
    SELECT i, enterprise_number(2000000 + 4 * i + draw(i, 1) % 4), chosen(i, 2, 0.6), now, NULL, now, now, now, now, now
    FROM (SELECT (SELECT count(*) FROM enterprise_state) + range AS i, getvariable('extract') AS now
        FROM range(getvariable('added')))""",
    """INSERT INTO establishment_state
    SELECT 1000000 * 16 + f.i, establishment_number(20000000 + 16 * f.i + draw(f.i, 3) % 16), e.i, e.number,
        e.began, NULL, e.began, e.began, e.began, e.began
    FROM (
        SELECT (SELECT count(*) FROM establishment_state) + row_number() OVER (ORDER BY i, nth) - 1 AS i, i AS enterprise
        FROM (SELECT i, unnest(range(CASE WHEN chosen(i, 4, 0.55) THEN 1 + (draw(i, 5) % 8)::BIGINT // 4 + (draw(i, 6) % 8)::BIGINT // 7
            ELSE 0 END)) AS nth FROM enterprise_state WHERE began = getvariable('extract'))
    ) f JOIN enterprise_state e ON e.i = f.enterprise ORDER BY f.i""",
]


def changed(shares: Changes) -> list[str]:
    """Statements that let the current extract change the state."""
    now = "getvariable('extract')"
    salt = f"{now} * 100"
    kinds = {
        "name": (1, shares.renamed),
        "address": (2, shares.moved),
        "activity": (3, shares.other_activities),
        "contact": (4, shares.other_contacts),
    }
    sets = [
        f"{kind} = CASE WHEN chosen(i, {salt} + {n}, {share:.6f}) THEN {now} ELSE {kind} END"
        for kind, (n, share) in kinds.items()
    ]
    form = f"form = CASE WHEN chosen(i, {salt} + 5, {shares.other_form:.6f}) THEN {now} ELSE form END"
    return [
        f"UPDATE enterprise_state SET ended = {now} WHERE ended IS NULL AND chosen(i, {salt}, {shares.ceased:.6f})",
        f"""UPDATE establishment_state AS s SET ended = {now} FROM enterprise_state e
        WHERE s.enterprise = e.i AND s.ended IS NULL AND (e.ended = {now} OR chosen(s.i, {salt}, {shares.ceased:.6f}))""",
        f"UPDATE enterprise_state SET {', '.join([*sets, form])} WHERE ended IS NULL",
        f"UPDATE establishment_state SET {', '.join(sets)} WHERE ended IS NULL",
    ]


# Enterprises and establishments as one list of entities, for the tables that are about both.
_ENTITIES = """(
    SELECT i, number, TRUE AS is_enterprise, is_legal, began, ended, name, address, activity, contact FROM enterprise_state
    UNION ALL
    SELECT i, number, FALSE, TRUE, began, ended, name, address, activity, contact FROM establishment_state)"""

# What the rows of an entity are drawn from: its own number, and the extract in which this kind of row last changed.
_AT = "(i * 31 + {kind} * 1009) % 2000000011"

_START = "DATE '1968-01-01' + (draw(i, 7) % 20000)::INTEGER"

_ENTERPRISE = f"""SELECT number, 'AC', CASE WHEN chosen({_AT.format(kind="form")}, 8, 0.97) THEN '000' ELSE '012' END,
    CASE WHEN is_legal THEN '2' ELSE '1' END,
    CASE WHEN is_legal THEN word({_FORMS}, {_AT.format(kind="form")}, 9) END, NULL::VARCHAR, {_START}
    FROM enterprise_state WHERE ended IS NULL"""

_ESTABLISHMENT = f"SELECT number, {_START}, enterprise_number FROM establishment_state WHERE ended IS NULL"

_X = _AT.format(kind="name")
_COMPANY = f"word({_FIRST}, x, 10) || ' ' || word({_SECOND}, x, 11) || ' ' || (draw(x, 12) % 100000)"
_DENOMINATION = f"""
SELECT number, row.l, row.t, row.d FROM (
    SELECT number, unnest(list_filter([
        CASE WHEN is_enterprise AND is_legal AND chosen(x, 13, 0.995) THEN {{
            'l': CASE WHEN chosen(x, 14, 0.6) THEN '2' WHEN chosen(x, 15, 0.9) THEN '1' WHEN chosen(x, 16, 0.5) THEN '3' ELSE '4' END,
            't': '001', 'd': {_COMPANY}}} END,
        CASE WHEN is_enterprise AND NOT is_legal THEN {{
            'l': '0', 't': '001', 'd': word({_SURNAMES}, x, 17) || ', ' || word({_GIVEN}, x, 18)}} END,
        CASE WHEN is_enterprise AND is_legal AND chosen(x, 19, 0.15) THEN {{
            'l': '1', 't': '001', 'd': 'Société "' || word({_SECOND}, x, 20) || '" ' || (draw(x, 21) % 1000)}} END,
        CASE WHEN is_enterprise AND chosen(x, 22, 0.1) THEN {{
            'l': '0', 't': '002', 'd': upper(word({_FIRST}, x, 10)[1:3]) || (draw(x, 23) % 100)}} END,
        CASE WHEN chosen(x, 24, CASE WHEN is_enterprise THEN 0.1 ELSE 0.6 END) THEN {{
            'l': '2', 't': '003', 'd': word({_SECOND}, x, 25) || ' & ' || word({_SURNAMES}, x, 26)}} END
    ], lambda d: d IS NOT NULL)) AS row
    FROM (SELECT *, {_X} AS x FROM {_ENTITIES} WHERE ended IS NULL)
)"""

_ADDRESS = f"""
SELECT number, CASE WHEN is_enterprise THEN 'REGO' ELSE 'BAET' END, NULL::VARCHAR, NULL::VARCHAR,
    {_ZIPCODES}[place], {_PLACES_NL}[place], {_PLACES_FR}[place], {_STREETS_NL}[street], {_STREETS_FR}[street],
    (1 + draw(x, 29) % 300)::VARCHAR, CASE WHEN chosen(x, 30, 0.2) THEN 'b' || draw(x, 31) % 40 ELSE '' END,
    CASE WHEN chosen(x, 32, 0.01) THEN 'c/o ' || word({_SURNAMES}, x, 33) END,
    CASE WHEN chosen(x, 34, 0.005) THEN DATE '2020-01-01' + (draw(x, 35) % 2000)::INTEGER END
FROM (
    SELECT number, is_enterprise, x, 1 + draw(x, 27) % 10 AS place, 1 + draw(x, 28) % 8 AS street
    FROM (SELECT *, {_AT.format(kind="address")} AS x FROM {_ENTITIES} WHERE ended IS NULL AND is_legal)
)"""

_CONTACT = f"""
SELECT number, CASE WHEN is_enterprise THEN 'ENT' ELSE 'EST' END, row.t, row.v FROM (
    SELECT number, is_enterprise, unnest(list_filter([
        CASE WHEN chosen(x, 36, 0.08) THEN {{'t': 'TEL', 'v': '02/' || lpad((draw(x, 37) % 10000000)::VARCHAR, 7, '0')}} END,
        CASE WHEN chosen(x, 38, 0.07) THEN {{'t': 'EMAIL', 'v': 'info@e' || i || '.example'}} END,
        CASE WHEN chosen(x, 39, 0.05) THEN {{'t': 'WEB', 'v': 'www.e' || i || '.example'}} END
    ], lambda d: d IS NOT NULL)) AS row
    FROM (SELECT *, {_AT.format(kind="contact")} AS x FROM {_ENTITIES} WHERE ended IS NULL)
)"""

# The codes of a version are 27 apart; those of one entity are 37 places apart, hence all different.
_NACE = "lpad((1110 + 27 * ((draw(x, 40) + 37 * nth) % getvariable('nace')))::VARCHAR, 5, '0')"
_ACTIVITY = f"""
SELECT number, CASE draw(x, 41) % 25 WHEN 0 THEN '001' WHEN 1 THEN '006' ELSE '003' END, version, {_NACE},
    CASE WHEN nth = 0 OR draw(x + nth, 42) % 100 < 50 THEN 'MAIN' ELSE 'SECO' END
FROM (
    SELECT number, x, nth, unnest(CASE WHEN nth % 12 = 11 THEN ['2025'] ELSE ['2003', '2008', '2025'] END) AS version
    FROM (
        SELECT number, x, unnest(range(1 + (draw(x, 43) % 7)::BIGINT)) AS nth
        FROM (SELECT *, {_AT.format(kind="activity")} AS x FROM {_ENTITIES} WHERE ended IS NULL)
        WHERE NOT is_enterprise OR chosen(x, 44, 0.65)
    )
)"""

_BRANCH = f"""
SELECT '9.' || digits(30000000 + i)[2:4] || '.' || digits(30000000 + i)[5:7] || '.' || digits(30000000 + i)[8:10],
    {_START}, number
FROM enterprise_state WHERE ended IS NULL AND chosen(i, 45, 0.004)"""

_NOW = "getvariable('extract')"


def _insert(rows: str, kind: str, source: str) -> list[str]:
    """For an update only what changed in the current extract, for a full extract everything."""
    return [rows.replace(source, source + f" AND {kind} = {_NOW}"), rows]


def _deleted(kind: str, source: str) -> list[str]:
    """Numbers that ended, or whose rows were there before and changed."""
    return [
        f"SELECT number FROM {source} WHERE ended = {_NOW} OR (ended IS NULL AND {kind} = {_NOW} AND began < {_NOW})"
    ]


ROWS: dict[str, list[str]] = {
    "add": _ADD,
    "enterprise_insert": _insert(_ENTERPRISE, "form", "ended IS NULL"),
    "enterprise_delete": _deleted("form", "enterprise_state"),
    "establishment_insert": _insert(_ESTABLISHMENT, "began", "ended IS NULL"),
    "establishment_delete": _deleted("began", "establishment_state"),
    "denomination_insert": _insert(_DENOMINATION, "name", "ended IS NULL"),
    "denomination_delete": _deleted("name", _ENTITIES),
    "address_insert": _insert(_ADDRESS, "address", "ended IS NULL"),
    "address_delete": _deleted("address", _ENTITIES),
    "contact_insert": _insert(_CONTACT, "contact", "ended IS NULL"),
    "contact_delete": _deleted("contact", _ENTITIES),
    "activity_insert": _insert(_ACTIVITY, "activity", "ended IS NULL"),
    "activity_delete": _deleted("activity", _ENTITIES),
    "branch_insert": _insert(_BRANCH, "began", "ended IS NULL"),
    "branch_delete": [
        f"SELECT made.id FROM ({_BRANCH.replace('ended IS NULL', f'ended = {_NOW}')}) AS made(id, started, number)"
    ],
}
"""File -> its rows in an update, and (for inserts) in a full extract."""


def _code(category: str, codes: str, languages: str = "NL|FR") -> str:
    return f"""SELECT '{category}', code, language, '{category} ' || code || CASE language WHEN 'NL' THEN ' (omschrijving)'
    WHEN 'FR' THEN ' (libellé)' ELSE ' (Beschreibung)' END
    FROM (SELECT unnest({codes}) AS code), (SELECT unnest({_words(languages)}) AS language)"""


_NACE_LIST = "list_transform(range(getvariable('nace')), lambda k: lpad((1110 + 27 * k)::VARCHAR, 5, '0'))"

CODES = " UNION ALL ".join(
    [
        _code("ActivityGroup", _words("001|002|003|004|005|006|007")),
        _code("Classification", _words("ANCI|MAIN|SECO")),
        _code("ContactType", _words("EMAIL|TEL|WEB")),
        _code("EntityContact", _words("BRA|ENT|EST")),
        _code("JuridicalForm", _words("014|017|610|612|706"), "NL|FR|DE"),
        _code("JuridicalSituation", _words("000|012"), "NL|FR|DE"),
        _code("Language", _words("0|1|2|3|4")),
        _code("Nace2003", _NACE_LIST),
        _code("Nace2008", _NACE_LIST),
        _code("Nace2025", _NACE_LIST),
        _code("Status", _words("AC")),
        _code("TypeOfAddress", _words("ABBR|BAET|OBAD|REGO")),
        _code("TypeOfDenomination", _words("001|002|003|004")),
        _code("TypeOfEnterprise", _words("0|1|2")),
    ]
)
"""The code table. The texts are made up; the codes are the register's own."""
