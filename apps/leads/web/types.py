"""What is known of a website: limits that go in, facts and scores that come out. Plain data, all of it JSON-serialisable.

A `SiteScan` holds everything later steps ask for, so that owner lookup and audit need no second visit. It is bounded
(lists are cut, texts are cut): some 5 to 20 KB, which a journal can hold.
"""

from __future__ import annotations

from typing import Literal

import msgspec

USER_AGENT = "holdfast-leads/0.1 (polite website scan; obeys robots.txt)"
WEB_PORTS = (80, 443, 8000, 8080, 8443)


class FetchLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How much of somebody else's time and bandwidth one scan may take. `DISCOVERY_LIMITS`, `ENRICHMENT_LIMITS`."""

    site_time_s: float = 30.0
    """For the whole site: robots.txt, page, further pages and files. What is not read by then is left out."""
    request_time_s: float = 10.0
    """For one file, from connecting to its last byte."""
    body_bytes_max: int = 3_000_000
    """Of one file, unpacked. A longer page is cut there and says so (`Access.is_truncated`)."""
    redirects_max: int = 5
    pages_max: int = 6
    """Home page and further pages (contact, imprint ...); only a comprehensive scan reads more than one."""
    assets_max: int = 6
    """Scripts and style sheets whose size, compression and caching a comprehensive scan looks at."""
    pause_s: float = 0.1
    """Between two requests to the site. A longer `Crawl-delay` in its robots.txt wins, up to `pause_max_s`."""
    pause_max_s: float = 5.0
    user_agent: str = USER_AGENT


DISCOVERY_LIMITS = FetchLimits(site_time_s=10.0, request_time_s=8.0, pages_max=1, assets_max=0)
ENRICHMENT_LIMITS = FetchLimits()


class NetworkPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Which addresses may be connected to. The default is the public internet and nothing else."""

    allowed_networks: tuple[str, ...] = ()
    """Networks that are allowed although they are not public: `127.0.0.0/8` in tests."""
    ports: tuple[int, ...] = WEB_PORTS
    """Ports that may be connected to on public addresses; an allowed network may be asked on any port."""
    ca_file: str | None = None
    """A file of certificates to trust instead of the usual ones (PEM)."""


LOOPBACK_ALLOWED = NetworkPolicy(allowed_networks=("127.0.0.0/8", "::1/128"))
"""For tests and the demo, whose sites run on this machine."""

FailureCode = Literal[
    "bad_url",  # not http(s), no host, or a user name in it
    "refused_address",  # private, loopback, link-local, metadata ... and not allowed by the policy
    "robots",  # robots.txt forbids it
    "dns",  # no such name
    "connect",  # refused, reset, unreachable
    "tls",  # no handshake at all
    "timeout",
    "redirects",  # too many, or in a circle
    "status",  # 4xx or 5xx
    "not_html",  # PDF, image ...
    "encoding",  # a Content-Encoding that was not asked for, or broken
    "bomb",  # a few bytes that unpack to far too many
    "protocol",  # not HTTP
]


class Failure(msgspec.Struct, frozen=True):
    """Why there are no facts. Not an exception: a site that is down is a fact as well."""

    code: FailureCode
    message: str
    is_transient: bool = False
    """A later attempt may succeed."""


class TlsFacts(msgspec.Struct):
    is_valid: bool
    problem: str | None = None
    """Why the certificate is not trusted: expired, other name ... The page was read nevertheless."""
    version: str | None = None
    """`TLSv1.3`."""
    cipher: str | None = None
    issuer: str | None = None
    subject: str | None = None
    expires_at: str | None = None
    """RFC 3339, UTC."""


class Access(msgspec.Struct):
    """How the page was reached, and what HTTP said."""

    url: str
    """As asked for."""
    final_url: str
    """After redirects."""
    is_reachable: bool
    """The home page answered with a status below 400 and HTML."""
    status: int | None = None
    redirects: list[str] = []
    """Where the site sent us, in order."""
    has_tls: bool = False
    tls: TlsFacts | None = None
    http_redirects_to_https: bool | None = None
    """None: not asked."""
    headers: dict[str, str] = {}
    """The ones that matter here, names in small letters (see `page.KEPT_HEADERS`)."""
    insecure_cookie_count: int = 0
    """Cookies without `Secure` on a TLS page or without `HttpOnly`."""
    elapsed_ms: int = 0
    """Until the last byte of the home page."""
    body_bytes: int = 0
    transferred_bytes: int = 0
    """Before unpacking."""
    is_truncated: bool = False
    charset: str = "utf-8"
    charset_source: str = "default"
    """`bom`, `http`, `meta`, `default`; `guess` where the declared one did not fit."""


class Head(msgspec.Struct):
    title: str | None = None
    description: str | None = None
    language: str | None = None
    """As `<html lang>` has it."""
    canonical_url: str | None = None
    viewport: str | None = None
    robots: str | None = None
    generator: str | None = None
    favicon_url: str | None = None
    open_graph: dict[str, str] = {}
    """`og:title` and so on, the prefix left out."""
    twitter_card: dict[str, str] = {}


class SitemapFacts(msgspec.Struct):
    is_found: bool
    url: str | None = None
    url_count: int = 0
    is_index: bool = False


class RobotsFacts(msgspec.Struct):
    is_found: bool
    is_allowed: bool = True
    """We may read the home page."""
    crawl_delay_s: float | None = None
    sitemap_urls: list[str] = []
    refused_ai_crawlers: list[str] = []
    """Of GPTBot, ClaudeBot, PerplexityBot ...: those who may not read the home page."""


class Structure(msgspec.Struct):
    h1: list[str] = []
    heading_levels: list[int] = []
    """1 to 6, in document order."""
    semantic_tags: list[str] = []
    image_count: int = 0
    internal_link_count: int = 0
    external_link_count: int = 0
    node_count: int = 0
    sitemap: SitemapFacts | None = None
    """None: not asked for (a single file, or the site was not reached)."""
    robots: RobotsFacts | None = None


class Phone(msgspec.Struct, frozen=True):
    number: str
    """E.164: `+3263220000`."""
    text: str
    """As written on the page."""
    source: str
    """`tel`, `structured` or `text`."""
    is_fax: bool = False
    page_url: str = ""


class Email(msgspec.Struct, frozen=True):
    address: str
    source: str
    """`mailto`, `structured`, `text` or `obfuscated`."""
    page_url: str = ""


class Address(msgspec.Struct, frozen=True):
    text: str
    """One line."""
    source: str
    """`structured` or `text`."""
    street: str | None = None
    postal_code: str | None = None
    city: str | None = None
    country: str | None = None


class Form(msgspec.Struct, frozen=True):
    kind: str
    """`contact`, `search`, `newsletter`, `login` or `other`."""
    field_count: int
    method: str
    action: str


class Contact(msgspec.Struct):
    page_url: str | None = None
    phones: list[Phone] = []
    emails: list[Email] = []
    forms: list[Form] = []
    has_form: bool = False
    """A contact form, of the page itself or of a form service."""
    addresses: list[Address] = []


class Signal(msgspec.Struct, frozen=True):
    """A service or program that left its mark on the page."""

    name: str
    """`calendly`, `google_analytics`, `wordpress` ..."""
    detail: str | None = None
    """Account, version or address, where the page tells."""


class Organization(msgspec.Struct):
    """What structured data says of the business."""

    name: str | None = None
    type: str | None = None
    telephone: str | None = None
    email: str | None = None
    rating: float | None = None
    review_count: int | None = None
    price_range: str | None = None
    opening_hours: list[str] = []
    same_as: list[str] = []


class StructuredData(msgspec.Struct):
    formats: list[str] = []
    """Of `json-ld`, `microdata`, `rdfa`."""
    types: list[str] = []
    """schema.org types, sorted."""
    item_count: int = 0
    error_count: int = 0
    """JSON-LD blocks that are not JSON."""
    organization: Organization | None = None


class Text(msgspec.Struct):
    description: str | None = None
    """Meta or Open Graph description, else the first real paragraph."""
    services: list[str] = []
    word_count: int = 0
    excerpt: str = ""
    """The first 500 characters of visible text."""


class Asset(msgspec.Struct, frozen=True):
    """A script or style sheet of the site that was fetched to look at how it is served."""

    url: str
    kind: str
    status: int
    body_bytes: int
    transferred_bytes: int
    is_compressed: bool
    cache_seconds: int | None
    """From Cache-Control or Expires; None: no word about caching."""


class Resources(msgspec.Struct):
    """What the page makes a browser load and do before it shows something."""

    script_count: int = 0
    stylesheet_count: int = 0
    image_count: int = 0
    font_count: int = 0
    iframe_count: int = 0
    third_party_hosts: list[str] = []
    render_blocking: list[str] = []
    """Scripts in the head without async, defer or module, and style sheets for all media."""
    inline_script_bytes: int = 0
    inline_style_bytes: int = 0
    images_without_size_count: int = 0
    images_lazy_count: int = 0
    insecure_urls: list[str] = []
    """http:// resources of an https:// page."""
    assets: list[Asset] = []


class Accessibility(msgspec.Struct):
    images_without_alt_count: int = 0
    field_count: int = 0
    fields_without_label_count: int = 0
    links_without_text_count: int = 0
    buttons_without_text_count: int = 0
    iframes_without_title_count: int = 0
    duplicate_id_count: int = 0
    positive_tabindex_count: int = 0
    has_main: bool = False
    has_skip_link: bool = False
    is_zoom_blocked: bool = False
    skipped_heading_count: int = 0


class ScoreComponent(msgspec.Struct, frozen=True):
    name: str
    points: int
    points_max: int
    reason: str


class Score(msgspec.Struct):
    points: int
    points_max: int
    is_passed: bool
    components: list[ScoreComponent]


class OwnerCandidate(msgspec.Struct, frozen=True):
    """A name that the site itself gives for who runs the business."""

    name: str
    role: str
    """`founder`, `owner`, `director`, `responsible`, `author` ..."""
    source: str
    """`structured`, `legal_page`, `contact_page`, `about_page`, `home_page`."""
    page_url: str
    confidence: float


class Page(msgspec.Struct, frozen=True):
    url: str
    kind: str
    """`home`, `contact`, `legal`, `about`, `services` or `booking`."""
    status: int | None
    failure: Failure | None = None


class SiteScan(msgspec.Struct):
    """Everything one visit found out. When `access.is_reachable` is false, `failure` says why and the rest is empty."""

    access: Access
    failure: Failure | None = None
    is_comprehensive: bool = False
    is_complete: bool = True
    """False: time was over before all pages were read."""
    country: str | None = None
    """Two letters: whose telephone numbers a number without + is taken for."""
    head: Head = msgspec.field(default_factory=Head)
    structure: Structure = msgspec.field(default_factory=Structure)
    contact: Contact = msgspec.field(default_factory=Contact)
    social: dict[str, str] = {}
    """Network (facebook, instagram, linkedin, x, youtube, tiktok, pinterest) -> address of the profile."""
    booking: list[Signal] = []
    chat: list[Signal] = []
    trackers: list[Signal] = []
    technology: list[Signal] = []
    structured: StructuredData = msgspec.field(default_factory=StructuredData)
    text: Text = msgspec.field(default_factory=Text)
    resources: Resources = msgspec.field(default_factory=Resources)
    accessibility: Accessibility = msgspec.field(default_factory=Accessibility)
    ai_readability: Score | None = None
    """Passed from 50 of 100 points. None when not reachable."""
    seo: Score | None = None
    """Passed with three of five."""
    owner_candidates: list[OwnerCandidate] = []
    """Most trusted first."""
    pages: list[Page] = []

    @property
    def is_reachable(self) -> bool:
        return self.access.is_reachable

    @property
    def runs_ads(self) -> bool:
        """Facebook pixel or Google Analytics, as the facts have it."""
        return any(tracker.name in {"facebook_pixel", "google_analytics"} for tracker in self.trackers)

    @property
    def is_ai_readable(self) -> bool:
        return self.ai_readability is not None and self.ai_readability.is_passed

    @property
    def is_seo_ok(self) -> bool:
        return self.seo is not None and self.seo.is_passed

    @property
    def has_booking(self) -> bool:
        return bool(self.booking)

    @property
    def has_chat(self) -> bool:
        return bool(self.chat)

    @property
    def has_phone(self) -> bool:
        return any(not phone.is_fax for phone in self.contact.phones)

    @property
    def has_email(self) -> bool:
        return bool(self.contact.emails)


class Owner(msgspec.Struct, frozen=True):
    name: str
    source: str
    """Which source answered: `website`, or the name of a paid one."""
    confidence: float
    """0 to 1."""
    role: str | None = None
    evidence: str | None = None
    """Where it stands: address of a page."""


class SourceUse(msgspec.Struct, frozen=True):
    """One question to one source, for the bill."""

    source: str
    cost_usd: float
    is_found: bool
    error: str | None = None


class OwnerSearch(msgspec.Struct):
    owner: Owner | None
    asked: list[SourceUse]

    @property
    def cost_usd(self) -> float:
        return round(sum(use.cost_usd for use in self.asked), 6)


AuditCategory = Literal["performance", "seo", "accessibility", "security"]
Severity = Literal["high", "medium", "low"]


class AuditIssue(msgspec.Struct, frozen=True):
    category: str
    """An `AuditCategory`, or what an outside service calls it."""
    code: str
    severity: str
    """A `Severity`."""
    points_lost: float
    message: str
    """What is wrong, with the figures."""
    advice: str
    """What to do about it."""


class AuditReport(msgspec.Struct):
    """A site judged. The same scan gives the same report."""

    source: str
    """`local`, or the address of the audit service."""
    url: str
    score: int
    """0 to 100."""
    scores: dict[str, int]
    """By category, 0 to 100."""
    issues: list[AuditIssue]
    """Heaviest first."""
    passed: list[str] = []
    """Codes of the checks that found nothing."""
    citations: list[str] = []
    html: str | None = None
    """A report page, where the service makes one."""
