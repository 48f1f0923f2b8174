"""What is read from one page. The pages are made by hand: apps/leads/data/pages."""

from __future__ import annotations

import time
from pathlib import Path
from random import Random

import msgspec
import pytest

from apps.leads.web import SiteScan, scan_page
from apps.leads.web.audit import judge
from apps.leads.web.charset import decode
from apps.leads.web.document import Document
from apps.leads.web.emails import emails_in
from apps.leads.web.people import candidates_in_text
from apps.leads.web.phones import guess_country, phones_in_links, phones_in_text
from apps.leads.web.types import Signal

PAGES = Path(__file__).resolve().parents[2] / "apps" / "leads" / "data" / "pages"


def page(name: str, url: str = "") -> SiteScan:
    return scan_page((PAGES / f"{name}.html").read_bytes(), url=url)


def of_html(html: str, url: str = "https://shop.example/", **more: str) -> SiteScan:
    return scan_page(html.encode(), url=url, **more)


@pytest.fixture(scope="module")
def bakery() -> SiteScan:
    return page("bakery")


def test_every_page_says_that_it_is_made_by_hand() -> None:
    for path in PAGES.glob("*.html"):
        assert b"Made by hand for the tests and the demo of leads" in path.read_bytes(), path


def test_a_scan_survives_json(bakery: SiteScan) -> None:
    encoded = msgspec.json.encode(bakery)
    assert msgspec.json.decode(encoded, type=SiteScan) == bakery
    assert len(encoded) < 20_000


def test_head(bakery: SiteScan) -> None:
    head = bakery.head
    assert head.title == "Boulangerie Exemple, pain au levain à Arlon"
    assert head.description is not None
    assert head.description.startswith("Pain au levain, pâtisseries")
    assert (head.language, head.generator) == ("fr-BE", "WordPress 6.5.2")
    assert head.canonical_url == "https://boulangerie.example/"
    assert head.favicon_url == "https://boulangerie.example/favicon.ico"
    assert head.viewport == "width=device-width, initial-scale=1"
    assert head.open_graph["title"] == "Boulangerie Exemple"
    assert head.twitter_card == {"card": "summary_large_image"}


def test_structure(bakery: SiteScan) -> None:
    structure = bakery.structure
    assert structure.h1 == ["Du pain au levain, cuit chaque nuit"]
    assert structure.heading_levels == [1, 2, 2]
    assert structure.semantic_tags == ["header", "nav", "main", "section", "footer", "address"]
    assert structure.image_count == 1
    assert structure.sitemap is None
    assert structure.robots is None


def test_contact(bakery: SiteScan) -> None:
    contact = bakery.contact
    assert {(phone.number, phone.is_fax, phone.source) for phone in contact.phones} == {
        ("+3263600010", False, "tel"),
        ("+3263600011", True, "structured"),
        ("+32470123456", False, "text"),
    }
    assert [(email.address, email.source) for email in contact.emails] == [("bonjour@boulangerie.example", "mailto")]
    assert contact.page_url == "https://boulangerie.example/contact"
    assert contact.has_form
    assert [(form.kind, form.method, form.field_count) for form in contact.forms] == [("contact", "post", 3)]
    assert contact.addresses[0].postal_code == "6700"
    assert contact.addresses[0].source == "structured"
    assert (bakery.has_phone, bakery.has_email) == (True, True)


def test_social_profiles_of_seven_networks_and_no_sharing_links(bakery: SiteScan) -> None:
    assert bakery.social == {
        "facebook": "https://www.facebook.com/boulangerie.exemple",
        "instagram": "https://www.instagram.com/boulangerie.exemple/",
        "linkedin": "https://www.linkedin.com/company/boulangerie-exemple",
        "youtube": "https://www.youtube.com/@boulangerieexemple",
        "tiktok": "https://www.tiktok.com/@boulangerie.exemple",
        "x": "https://x.com/boulangerie_ex",
        "pinterest": "https://www.pinterest.fr/boulangerieexemple/",
    }


SIGNALS = {
    ("bakery", "booking"): [Signal("calendly", "boulangerie-exemple")],
    ("bakery", "chat"): [Signal("tawk", "5f0000000000000000000001")],
    ("bakery", "trackers"): [
        Signal("facebook_pixel", "123456789012345"),
        Signal("google_analytics", "G-AB12CD34EF"),
        Signal("google_tag_manager", "GTM-ABC1234"),
    ],
    ("bakery", "technology"): [Signal("wordpress", "6.5.2")],
    ("boutique-shopify", "technology"): [Signal("shopify")],
    ("boutique-shopify", "chat"): [Signal("intercom", "ab12cd34")],
    ("boutique-shopify", "trackers"): [
        Signal("google_analytics", "UA-1234567-8"),
        Signal("linkedin", "123456"),
        Signal("tiktok", "C0ABCDEF1234567890"),
    ],
    ("boutique-shopify", "booking"): [],
    ("salon-wix", "technology"): [Signal("wix")],
    ("salon-wix", "booking"): [Signal("acuity")],
    ("salon-wix", "chat"): [Signal("drift", "abc123def456")],
    ("studio-squarespace", "technology"): [Signal("squarespace")],
    ("studio-squarespace", "booking"): [Signal("square")],
    ("studio-squarespace", "chat"): [Signal("zendesk", "0a1b2c3d-0000-0000-0000-000000000000")],
    ("garage-webflow", "technology"): [Signal("webflow")],
    ("garage-webflow", "booking"): [Signal("own", "/termin")],
    ("garage-webflow", "trackers"): [],
}


@pytest.mark.parametrize(("name", "group"), SIGNALS)
def test_services_and_programs(name: str, group: str) -> None:
    assert getattr(page(name), group) == SIGNALS[name, group]


def test_a_service_that_is_only_talked_about_is_not_there() -> None:
    scan = of_html("<p>We left WordPress and Wix, chat by tawk.to, fbq('init', '1'), Calendly, GTM-ABC1234")
    assert (scan.technology, scan.chat, scan.trackers, scan.booking) == ([], [], [], [])


def test_the_server_tells_its_programs_by_headers() -> None:
    from apps.leads.web.signatures import Marks, technology

    document = Document(b"<p>", "https://shop.example/")
    found = technology(document, Marks(document), {"server": "nginx/1.24.0", "x-powered-by": "PHP/8.2.1"})
    assert found == [Signal("nginx", "1.24.0"), Signal("php", "8.2.1")]


def test_structured_data_of_json_ld(bakery: SiteScan) -> None:
    data = bakery.structured
    assert data.formats == ["json-ld"]
    assert data.types == ["AggregateRating", "Bakery", "Person", "PostalAddress", "WebSite"]
    organization = data.organization
    assert organization is not None
    assert (organization.name, organization.type) == ("Boulangerie Exemple", "Bakery")
    assert (organization.rating, organization.review_count) == (4.7, 132)
    assert organization.opening_hours == ["Tu-Sa 06:00-18:00", "Su 06:00-12:00"]
    assert len(organization.same_as) == 2


def test_structured_data_of_microdata_keeps_inner_items_apart() -> None:
    scan = page("salon-wix")
    organization = scan.structured.organization
    assert scan.structured.formats == ["microdata"]
    assert organization is not None
    assert (organization.name, organization.type) == ("Example Salon", "HairSalon")  # not Priya Patel
    assert (organization.rating, organization.review_count) == (4.9, 18)
    assert scan.contact.addresses[0].text == "1 Example Lane, LS1 4AP Leeds"
    assert {phone.number for phone in scan.contact.phones} == {"+447400123456", "+441134960123"}
    assert [email.address for email in scan.contact.emails] == ["hello@salon.example"]


def test_rdfa_lite() -> None:
    scan = of_html('<div vocab="https://schema.org/" typeof="Store"><b property="name">Corner Shop</b></div>')
    assert (scan.structured.formats, scan.structured.types) == (["rdfa"], ["Store"])
    assert scan.structured.organization is not None
    assert scan.structured.organization.name == "Corner Shop"


def test_text_and_services(bakery: SiteScan) -> None:
    assert bakery.text.services == ["Pain au levain", "Pâtisseries sur commande", "Petits déjeuners d'entreprise"]
    assert page("garage-webflow").text.services == ["Inspektion", "Reifenwechsel"]
    assert "dataLayer" not in bakery.text.excerpt
    assert bakery.text.word_count > 30


def test_ai_readability_gives_the_points_of_the_specification(bakery: SiteScan) -> None:
    score = bakery.ai_readability
    assert score is not None
    assert {one.name: one.points_max for one in score.components} == {
        "structured_data": 20,
        "headings": 15,
        "semantic_tags": 10,
        "meta_text": 10,
        "open_graph": 10,
        "contact": 10,
        "address": 5,
        "sitemap": 10,
        "alternative_texts": 10,
    }
    assert [one.name for one in score.components if one.points == 0] == ["sitemap"]
    assert (score.points, score.is_passed, bakery.is_ai_readable) == (90, True, True)
    poor = page("boutique-shopify").ai_readability
    assert poor is not None
    assert (poor.points, poor.is_passed) == (20, False)


def test_readable_begins_at_fifty() -> None:
    base = '<h1>A</h1><h2>B</h2><main></main><nav></nav><meta name="description" content="{}">'
    assert of_html(base.format("x" * 51) + "<div itemscope itemtype='https://schema.org/Thing'>").is_ai_readable  # 55
    assert not of_html(base.format("x" * 50) + "<div itemscope itemtype='https://schema.org/Thing'>").is_ai_readable


@pytest.mark.parametrize(
    ("url", "html", "points"),
    [
        ("http://a.example/", "<p>", 0),
        ("https://a.example/", "<p>", 1),
        ("https://a.example/", "<h1>A</h1>", 2),
        ("https://a.example/", "<h1>A</h1><meta name=description content=b>", 3),
        ("https://a.example/", "<h1>A</h1><meta name=description content=b><meta property=og:title content=c>", 4),
    ],
)
def test_seo_is_ok_with_three_of_five(url: str, html: str, points: int) -> None:
    scan = of_html(html, url)
    assert scan.seo is not None
    assert (scan.seo.points, scan.seo.points_max) == (points, 5)
    assert scan.is_seo_ok == (points >= 3)


def test_ads_are_the_pixel_or_analytics(bakery: SiteScan) -> None:
    assert bakery.runs_ads
    assert page("boutique-shopify").runs_ads
    assert not of_html("<script>x('GTM-ABC1234')</script>").runs_ads


def test_addresses_that_are_lightly_hidden_from_robots() -> None:
    scan = page("hidden")
    assert {(email.address, email.source) for email in scan.contact.emails} == {
        ("info@voorbeeld.nl", "obfuscated"),
        ("verkoop@voorbeeld.nl", "obfuscated"),
        ("service@voorbeeld.nl", "obfuscated"),
        ("kantoor@voorbeeld.nl", "obfuscated"),
        ("bent@voorbeeld.nl", "obfuscated"),  # Cloudflare
        ("inkoop@voorbeeld.nl", "text"),  # character references
    }
    assert [phone.number for phone in scan.contact.phones] == ["+31207946095"]


EMAILS = {
    "mailto with a subject": ('<a href="mailto:Info@Shop.example?subject=x">', ["info@shop.example"]),
    "two in one link": ('<a href="mailto:a@shop.example,b@shop.example">', ["a@shop.example", "b@shop.example"]),
    "percent-encoded": ('<a href="mailto:%69nfo%40shop.example">', ["info@shop.example"]),
    "at the end of a sentence": ("<p>Write to info@shop.example.", ["info@shop.example"]),
    "split by markup": ("<p>info<b>@</b>shop.example", ["info@shop.example"]),
    "a file for fine screens": ("<p>logo@2x.png", []),
    "a place holder": ("<p>you@example.com name@shop.example", []),
    "of a tool": ("<p>abc123@sentry.io", []),
    "in a script": ("<script>var a='x@shop.example'</script>", []),
    "a sentence": ("<p>Meet us at noon dot com", ["us@noon.com"]),
    "another sentence": ("<p>We are at home. See you at the fair", []),
    "a handle": ("<p>Follow @shop.example", []),
}


@pytest.mark.parametrize("case", EMAILS)
def test_emails(case: str) -> None:
    html, expected = EMAILS[case]
    assert [email.address for email in emails_in(Document(html.encode(), "https://shop.example/"))] == expected


PHONES = {
    "national": ("063 60 00 10", "BE", ["+3263600010"]),
    "international": ("+32 (0)63 60 00 10", None, ["+3263600010"]),
    "two, with a stroke": ("Tel 212-307-7050/800-451-9930", "US", ["+12123077050", "+18004519930"]),
    "with an extension": ("(202) 555-0143 ext. 12", "US", ["+12025550143"]),
    "a price is none": ("Only $2025550143 today", "US", []),
    "an account is none": ("IBAN BE68 5390 0754 7034", "BE", []),
    "a VAT number is none": ("BTW BE 0470 123 456", "BE", []),
    "opening hours are none": ("09.00 - 17.00", "NL", []),
    "a date is none": ("2024-11-21 10:00", "US", []),
    "in pieces, after a label": ("Local: 3 16-69 1-85 19", "US", ["+13166918519"]),
    "nobody's country": ("063 60 00 10", None, []),
}


@pytest.mark.parametrize("case", PHONES)
def test_phones_in_text(case: str) -> None:
    text, country, expected = PHONES[case]
    document = Document(f"<p>{text}</p>".encode(), "https://shop.example/")
    assert [phone.number for phone in phones_in_text(document, country)] == expected


@pytest.mark.parametrize(
    ("html", "is_fax"),
    [
        ("Fax: 063 60 00 10", True),
        ("F. 063 60 00 10", True),
        ("Télécopieur 063 60 00 10", True),
        ("<td>Fax</td><td>063 60 00 10</td>", True),
        ("Tel 063 60 00 10", False),
        ("Fax und Telefon? Nur Tel 063 60 00 10", False),
    ],
)
def test_a_fax_is_known_by_the_word_before_it(html: str, is_fax: bool) -> None:
    document = Document(f"<table><tr>{html}".encode(), "https://shop.example/")
    assert [phone.is_fax for phone in phones_in_text(document, "BE")] == [is_fax]


@pytest.mark.parametrize(
    ("href", "number"),
    [
        ("tel:+3263600010", "+3263600010"),
        ("tel:063600010", "+3263600010"),
        ("TEL:0032%2063%2060%2000%2010", "+3263600010"),
        ("tel:3263600010;ext=3", "+3263600010"),
        ("https://wa.me/32470123456", "+32470123456"),
        ("tel:123", None),
        ("tel:", None),
    ],
)
def test_phones_in_links(href: str, number: str | None) -> None:
    document = Document(f'<a href="{href}">call</a>'.encode(), "https://shop.example/")
    assert [phone.number for phone in phones_in_links(document, "BE")] == ([number] if number else [])


@pytest.mark.parametrize(
    ("url", "html", "country"),
    [
        ("https://shop.be/", '<html lang="en-US">', "BE"),
        ("https://shop.co.uk/", "", "GB"),
        ("https://shop.com/", '<html lang="de-AT">', "AT"),
        ("https://shop.com/", "<p>Leeds LS1 4AP", "GB"),
        ("https://shop.com/", "<p>Springfield, IL 62701", "US"),
        ("https://shop.com/", '<html lang="fr">', "FR"),
        ("https://shop.com/", "<p>nothing", None),
    ],
)
def test_whose_numbers_they_are(url: str, html: str, country: str | None) -> None:
    assert guess_country(Document(html.encode(), url)) == country


def test_a_stated_country_wins() -> None:
    html = "<p>Tel 063 60 00 10"
    assert [one.number for one in of_html(html, "https://shop.fr/", country="be").contact.phones] == ["+3263600010"]


CHARSETS = {
    "as the header says": ("é".encode("latin-1"), "text/html; charset=ISO-8859-1", "é", "cp1252", "http"),
    "the mark wins": (b"\xef\xbb\xbf\xc3\xa9", "text/html; charset=iso-8859-1", "é", "utf-8", "bom"),
    "UTF-16 with a mark": ("\ufeffé".encode("utf-16-le"), None, "é", "utf-16-le", "bom"),
    "as the page says": (b'<meta charset="windows-1252">\x80', None, "€", "cp1252", "meta"),
    "the old way": (
        b'<meta http-equiv=x content="text/html; charset=iso-8859-15">\xa4',
        None,
        "€",
        "iso8859-15",
        "meta",
    ),
    "says UTF-8 and is not": (b'<meta charset="utf-8">caf\xe9 d\xe9j\xe0', None, "café déjà", "cp1252", "guess"),
    "says Latin and is UTF-8": ("é".encode(), "text/html; charset=iso-8859-1", "é", "utf-8", "guess"),
    "UTF-8 cut in a character": ("éàü".encode()[:-1], "text/html; charset=utf-8", "éà\ufffd", "utf-8", "http"),
    "a charset nobody knows": ("é".encode(), "text/html; charset=klingon", "é", "utf-8", "default"),
    "no text at all": (b'<meta charset="rot13">caf\xe9', None, "café", "cp1252", "guess"),
    "bytes that fit nowhere": (b'<meta charset="shift_jis">\xff\xfe\xfd', None, "ÿþý", "cp1252", "guess"),
}


@pytest.mark.parametrize("case", CHARSETS)
def test_charsets(case: str) -> None:
    body, content_type, text, charset, source = CHARSETS[case]
    decoded = decode(body, content_type)
    assert decoded.text.endswith(text)
    assert (decoded.charset, decoded.source) == (charset, source)


def test_a_page_in_another_charset() -> None:
    scan = page("cafe-windows-1252")
    assert scan.head.title == "Café €"
    assert (scan.access.charset, scan.access.charset_source) == ("cp1252", "meta")


def test_a_broken_page_gives_what_it_has() -> None:
    scan = page("broken")
    assert scan.head.title == "Broken"
    assert scan.structured.error_count == 1
    assert scan.structured.organization is not None
    assert scan.structured.organization.name == "Broken Store"
    assert scan.accessibility.skipped_heading_count == 1
    assert scan.accessibility.images_without_alt_count == 1
    assert scan.accessibility.fields_without_label_count == 1
    assert scan.accessibility.iframes_without_title_count == 1


HOSTILE = {
    "nothing": b"",
    "zeros": bytes(10_000),
    "deep": b"<div>" * 100_000 + b"text",
    "deep items": b"<div itemscope itemtype=https://schema.org/Thing itemprop=a>" * 3_000,
    "deep JSON": b'<script type="application/ld+json">' + b"[" * 100_000 + b"</script>",
    "wide JSON": b'<script type="application/ld+json">' + b'{"@type":"A","b":' * 300 + b"1" + b"}" * 300 + b"</script>",
    "digits": b"<p>" + b"1 23-4" * 50_000,
    "addresses": b"<p>" + b"a@" * 100_000,
    "dots": b"<p>" + b"a.b " * 50_000 + b"at x dot",
    "names": b"<p>Owner " + b"Van Der Jan " * 10_000,
    "capitals": b"<p>" + b"A1 " * 60_000,
    "meta without end": b"<meta " + b"charset " * 50_000,
    "endless rating": b'<div itemscope itemtype="https://schema.org/Store"><i itemprop=name>S</i><p itemprop=aggregateRating itemscope '
    b'itemtype="https://schema.org/AggregateRating"><i itemprop=reviewCount>1e999</i>',
}


@pytest.mark.parametrize("case", HOSTILE)
def test_no_page_is_too_much(case: str) -> None:
    started = time.process_time()
    scan = scan_page(HOSTILE[case], url="https://shop.example/", country="US")
    assert time.process_time() - started < 5, "seconds for one page"
    assert scan.is_reachable
    assert len(msgspec.json.encode(scan)) < 60_000


ODD = [
    b"<",
    b">",
    b'"',
    b"\0",
    b"\xff",
    b"&#0;",
    b'<base href="http://[">',
    b'<a href="http://a:99999/">',
    b'"@type":{"a":1},',
]
ODD += [
    b'<i tabindex="\xc2\xb2">',
    b'<script type="application/ld+json">{"@type":"Store","name":{"name":[]},"address":{"@type":[]}}</script>',
]


@pytest.mark.parametrize("seed", range(5))
def test_no_damage_to_a_page_is_an_error(seed: int) -> None:
    random = Random(seed)
    pages = [path.read_bytes() for path in sorted(PAGES.glob("*.html"))]
    for _ in range(20):
        body = bytearray(random.choice(pages))
        for _ in range(random.randint(1, 30)):
            at = random.randrange(len(body) + 1)
            if random.random() < 0.4:
                del body[at : at + random.randint(1, 200)]
            elif random.random() < 0.5:
                body[at:at] = random.choice(ODD)
            else:
                other = random.choice(pages)
                start = random.randrange(len(other))
                body[at:at] = other[start : start + random.randint(1, 400)]
        scan = scan_page(bytes(body), url=random.choice(["", "https://shop.be/", "http://[::1]/", "http://x:99999/"]))
        assert judge(scan).score in range(101)
        assert msgspec.json.decode(msgspec.json.encode(scan), type=SiteScan) == scan


FORMS = {
    "login": '<form><input type="password"></form>',
    "search": '<form><input name="q"></form>',
    "contact": '<form method=post><input name="email"><textarea></textarea></form>',
    "newsletter": '<form method=post><input type="email"></form>',
    "other": '<form method=post><input name="size"><input name="colour"></form>',
}


@pytest.mark.parametrize("kind", FORMS)
def test_what_a_form_is_for(kind: str) -> None:
    contact = of_html(FORMS[kind]).contact
    assert [form.kind for form in contact.forms] == [kind]
    assert contact.has_form == (kind == "contact")


def test_a_form_service_counts_as_contact_form() -> None:
    assert of_html('<iframe src="https://form.typeform.com/to/abc"></iframe>').contact.has_form


OWNERS = {
    "Geschäftsführer: Dr. Jan Peeters": ("Jan Peeters", "director"),
    "Inhaber Max von der Heide": ("Max von der Heide", "owner"),
    "Inhaberin: Frau Eva Müller": ("Eva Müller", "owner"),
    "Vertreten durch:<br>Karl Schmidt": ("Karl Schmidt", "director"),
    "Verantwortlich für den Inhalt nach § 55 Abs. 2 RStV: Eva Müller": ("Eva Müller", "responsible"),
    "Gérante : Mme Sophie Dupont-Martin": ("Sophie Dupont-Martin", "director"),
    "Directeur de la publication : Jean Dupont": ("Jean Dupont", "responsible"),
    "Zaakvoerder: Piet van den Berg": ("Piet van den Berg", "director"),
    "Eigenaar is Jan de Vries": ("Jan de Vries", "owner"),
    "Anna O'Neil, Owner": ("Anna O'Neil", "owner"),
    "We are owned and operated by Sarah Smith. Welcome": ("Sarah Smith", "owner"),
    "<dt>Founder</dt><dd>Tom Bakker</dd>": ("Tom Bakker", "founder"),
    "Owner: Our Company": None,
    "Contact the owner of the Black Dog": None,
    "Managing Director Sales Team": None,
    "Jan Peeters, customer": None,
}


@pytest.mark.parametrize("html", OWNERS)
def test_names_beside_a_role(html: str) -> None:
    found = candidates_in_text(Document(f"<p>{html}</p>".encode(), "https://shop.example/"), "legal")
    expected = OWNERS[html]
    assert [(one.name, one.role) for one in found] == ([expected] if expected else [])
