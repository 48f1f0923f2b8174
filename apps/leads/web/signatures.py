"""Services and programs that leave a mark on a page: booking, chat, trackers, technology, social profiles. Pure tables.

A mark is looked for where such a thing really stands: in addresses of scripts, frames, links and files, or in inline
script. A name in the visible text is none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property
from urllib.parse import urlsplit

from apps.leads.web.document import Document, attribute, host_of
from apps.leads.web.types import Signal

_SCRIPT_CHARACTERS_MAX = 400_000

Patterns = Mapping[str, tuple[str, ...]]
"""Name of a service -> patterns in addresses (`url:`), inline script (`js:`), or as a CSS selector (`css:`).
The first group of a pattern, if it has one, is the detail: an account, a version."""

BOOKING: Patterns = {
    "calendly": (r"url:calendly\.com/(?!assets)([\w-]+)", r"js:Calendly\.init", r"url:assets\.calendly\.com"),
    "acuity": (r"url:acuityscheduling\.com", r"url:\.as\.me(?:/|$)"),
    "square": (
        r"url:squareup\.com/appointments",
        r"url:book\.squareup\.com",
        r"url:square\.site/book",
        r"url:appointments\.square",
    ),
    "booksy": (r"url:booksy\.com",),
    "fresha": (r"url:fresha\.com",),
    "setmore": (r"url:setmore\.com",),
    "simplybook": (r"url:simplybook\.(?:me|it)",),
    "opentable": (r"url:opentable\.\w+",),
    "resengo": (r"url:resengo\.com",),
    "zenchef": (r"url:zenchef\.com",),
    "thefork": (r"url:thefork\.\w+", r"url:lafourchette\.com"),
    "doctolib": (r"url:doctolib\.\w+",),
    "mindbody": (r"url:mindbodyonline\.com",),
    "hubspot_meetings": (r"url:meetings\.hubspot\.com",),
    "google_calendar": (r"url:calendar\.google\.com/calendar/(?:u/\d/)?appointments", r"url:calendar\.app\.google"),
}
CHAT: Patterns = {
    "tawk": (r"url:embed\.tawk\.to/(\w+)", r"js:embed\.tawk\.to/(\w+)", r"js:Tawk_API"),
    "intercom": (
        r"url:widget\.intercom\.io/widget/(\w+)",
        r"js:widget\.intercom\.io/widget/(\w+)",
        r"js:intercomSettings",
    ),
    "drift": (r"url:js\.driftt?\.com", r"js:drift\.load\(['\"](\w+)", r"js:js\.driftt\.com"),
    "zendesk": (
        r"url:static\.zdassets\.com/ekr/snippet\.js\?key=([\w-]+)",
        r"url:zopim\.com",
        r"js:zopim\.com",
        r"js:zESettings",
        r"js:\$zopim",
    ),
    "crisp": (r"url:client\.crisp\.chat", r"js:CRISP_WEBSITE_ID\s*=\s*['\"]([\w-]+)"),
    "livechat": (r"url:cdn\.livechatinc\.com", r"js:__lc\.license\s*=\s*(\d+)", r"js:livechatinc\.com"),
    "hubspot_chat": (r"url:js\.usemessages\.com",),
    "tidio": (r"url:code\.tidio\.co/(\w+)",),
    "olark": (r"url:static\.olark\.com", r"js:olark\.identify"),
    "liveperson": (r"url:liveperson\.net", r"js:liveperson\.net"),
    "smartsupp": (r"js:_smartsupp\.key\s*=\s*['\"](\w+)", r"url:smartsuppchat\.com"),
    "messenger": (r"css:.fb-customerchat", r"js:xfbml\.customerchat"),
    "provide_support": (r"url:providesupport\.com", r"js:providesupport\.com"),
}
TRACKERS: Patterns = {
    "facebook_pixel": (
        r"js:fbq\(\s*['\"]init['\"]\s*,\s*['\"](\d+)",
        r"url:facebook\.com/tr\?id=(\d+)",
        r"js:fbevents\.js",
    ),
    "google_analytics": (
        r"js:['\"](UA-\d{4,}-\d+)['\"]",
        r"url:googletagmanager\.com/gtag/js\?id=(G-\w+)",
        r"js:gtag\(\s*['\"]config['\"]\s*,\s*['\"](G-\w+)",
        r"url:google-analytics\.com/(?:ga|analytics|urchin)\.js",
        r"js:google-analytics\.com/(?:ga|analytics|urchin)\.js",
    ),
    "google_tag_manager": (
        r"url:googletagmanager\.com/(?:gtm\.js|ns\.html)\?id=(GTM-\w+)",
        r"js:['\"](GTM-\w{4,})['\"]",
    ),
    "google_ads": (
        r"url:googletagmanager\.com/gtag/js\?id=(AW-\d+)",
        r"js:gtag\(\s*['\"]config['\"]\s*,\s*['\"](AW-\d+)",
        r"url:googleadservices\.com/pagead/conversion",
        r"js:google_conversion_id\s*=\s*(\d+)",
    ),
    "linkedin": (r"js:_linkedin_partner_id\s*=\s*['\"](\d+)", r"url:snap\.licdn\.com", r"url:px\.ads\.linkedin\.com"),
    "tiktok": (r"js:ttq\.load\(\s*['\"](\w+)", r"js:analytics\.tiktok\.com", r"url:analytics\.tiktok\.com"),
    "hotjar": (r"js:hjid\s*:\s*(\d+)", r"url:static\.hotjar\.com"),
    "clarity": (r"url:clarity\.ms/tag/(\w+)", r"js:clarity\.ms/tag"),
    "pinterest": (r"js:pintrk\(\s*['\"]load['\"]\s*,\s*['\"](\d+)",),
    "bing_ads": (r"url:bat\.bing\.com", r"js:bat\.bing\.com"),
    "matomo": (r"url:(?:matomo|piwik)\.js", r"js:_paq\.push"),
    "plausible": (r"url:plausible\.io/js",),
}
TECHNOLOGY: Patterns = {
    "wordpress": (
        r"css:meta[name=generator i][content^=WordPress i]",
        r"url:/wp-(?:content|includes)/",
        r"url:/wp-json/",
    ),
    "shopify": (r"url:cdn\.shopify\.com", r"js:Shopify\.(?:shop|theme)\b", r"url:\.myshopify\.com"),
    "wix": (
        r"css:meta[name=generator i][content*=Wix i]",
        r"url:static\.parastorage\.com",
        r"url:static\.wixstatic\.com",
        r"js:wixBiSession",
    ),
    "squarespace": (
        r"css:meta[name=generator i][content*=Squarespace i]",
        r"url:static1?\.squarespace\.com",
        r"js:Static\.SQUARESPACE_CONTEXT",
    ),
    "webflow": (
        r"css:html[data-wf-site]",
        r"css:meta[name=generator i][content*=Webflow i]",
        r"url:assets[\w.-]*\.website-files\.com",
    ),
    "joomla": (r"css:meta[name=generator i][content*=Joomla i]", r"url:/media/jui/", r"url:/components/com_\w+/"),
    "drupal": (
        r"css:meta[name=generator i][content*=Drupal i]",
        r"url:/sites/(?:all|default)/(?:themes|modules|files)/",
        r"js:Drupal\.settings",
    ),
    "typo3": (r"css:meta[name=generator i][content*=TYPO3 i]", r"url:/typo3(?:conf|temp)/"),
    "prestashop": (r"css:meta[name=generator i][content*=PrestaShop i]", r"js:var prestashop\s*="),
    "magento": (r"url:/skin/frontend/", r"js:Mage\.Cookies", r"css:script[type='text/x-magento-init']"),
    "woocommerce": (r"url:/plugins/woocommerce/", r"css:body.woocommerce"),
    "oscommerce": (r"url:osCsid=", r"url:product_info\.php\?"),
    "jimdo": (r"url:\.jimdo(?:-static)?\.com", r"css:meta[name=generator i][content*=Jimdo i]"),
    "weebly": (r"url:cdn\d*\.editmysite\.com", r"css:meta[name=generator i][content*=Weebly i]"),
    "godaddy": (r"url:img\d\.wsimg\.com", r"css:meta[name=generator i][content*='GoDaddy' i]"),
    "hubspot": (r"url:js\.hs-scripts\.com/(\d+)", r"css:meta[name=generator i][content*=HubSpot i]"),
    "jquery": (r"url:jquery[.-]?(\d+\.\d+(?:\.\d+)?)?(?:\.min)?\.js", r"url:/jquery/(\d[\d.]*)/"),
    "bootstrap": (r"url:bootstrap(?:\.bundle)?(?:\.min)?\.(?:css|js)", r"url:/bootstrap(?:@|/)(\d[\d.]*)"),
    "react": (r"css:[data-reactroot]", r"url:react(?:-dom)?(?:\.production)?\.min\.js"),
    "nextjs": (r"css:script#__NEXT_DATA__", r"url:/_next/static/"),
    "vue": (r"url:/vue(?:@[\d.]+)?(?:\.global|\.runtime)?(?:\.prod|\.min)?\.js", r"css:[data-v-app]"),
    "nuxt": (r"css:#__nuxt", r"url:/_nuxt/"),
    "google_fonts": (r"url:fonts\.(?:googleapis|gstatic)\.com",),
    "google_maps": (r"url:google\.\w+(?:\.\w+)?/maps", r"url:maps\.google(?:apis)?\."),
    "recaptcha": (r"url:google\.com/recaptcha", r"css:.g-recaptcha"),
    "cloudflare": (r"url:/cdn-cgi/",),
}
# Form services: the form itself is in a frame or comes by script.
FORM_SERVICES: Patterns = {
    "typeform": (r"url:typeform\.com",),
    "jotform": (r"url:jotform(?:eu)?\.(?:com|net)",),
    "google_forms": (r"url:docs\.google\.com/forms",),
    "hubspot_forms": (r"url:js\.hsforms\.net", r"js:hbspt\.forms\.create"),
    "wufoo": (r"url:wufoo\.com",),
    "formspree": (r"url:formspree\.io",),
}
# What a profile is not: sharing, log-in, single posts.
_NO_PROFILE = re.compile(
    r"/(?:share(?:r|article)?(?:\.php)?|sharing|intent|home|login|dialog|plugins|hashtag|search|widgets?|tr|pin/create|"
    r"cws/share|explore|legal|policies|privacy|help|embed|watch|results|status|p|reel|groups/share)(?:[/?]|$)",
    re.IGNORECASE,
)
SOCIAL_HOSTS: Mapping[str, tuple[str, ...]] = {
    "facebook": ("facebook.com", "fb.com", "fb.me"),
    "instagram": ("instagram.com",),
    "linkedin": ("linkedin.com",),
    "x": ("twitter.com", "x.com"),
    "youtube": ("youtube.com", "youtu.be"),
    "tiktok": ("tiktok.com",),
    "pinterest": ("pinterest.com", "pinterest.co.uk", "pinterest.ca", "pinterest.fr", "pinterest.de", "pinterest.be"),
}
_OWN_BOOKING = re.compile(
    r"\b(?:book (?:now|online|an? (?:appointment|table|room|visit))|make (?:a reservation|an appointment)|reserve (?:a table|now|online)|"
    r"schedule (?:an appointment|a (?:tour|visit|call))|prendre rendez-vous|prenez rendez-vous|r[ée]server|r[ée]servez|"
    r"maak een afspraak|afspraak maken|online reserveren|reserveer|boek (?:nu|online)|termin (?:buchen|vereinbaren)|"
    r"jetzt buchen|online[- ]buchen|tisch reservieren)\b",
    re.IGNORECASE,
)


class Marks:
    """Where marks stand on one page."""

    def __init__(self, document: Document) -> None:
        self._document = document

    @cached_property
    def urls(self) -> str:
        """All addresses the page refers to, one a line."""
        found: list[str] = []
        for name in ("src", "href", "action", "data-src", "data-url", "content"):
            for node in self._document.nodes(f"[{name}]")[:4_000]:
                value = attribute(node, name)
                if name != "content" or value.startswith(("http", "/")):
                    found.append(value[:500])
        return "\n".join(found)

    @cached_property
    def scripts(self) -> str:
        """All inline script, without data blocks; and what a page without script shows."""
        parts = [
            node.text() or ""
            for node in self._document.nodes("script:not([src])")
            if "json" not in attribute(node, "type")
        ]
        return "\n".join(parts)[:_SCRIPT_CHARACTERS_MAX]

    def find(self, patterns: Patterns) -> list[Signal]:
        """Those of `patterns` that are there, in their order."""
        found: list[Signal] = []
        for name, rules in patterns.items():
            hits = [hit for rule in rules if (hit := self._hit(rule)) is not None]
            if hits:
                found.append(Signal(name, next((hit for hit in hits if hit), None)))
        return found

    def _hit(self, rule: str) -> str | None:
        """None: not there. Otherwise its detail, which may be empty."""
        kind, _, pattern = rule.partition(":")
        if kind == "css":
            return "" if self._document.tree.css_first(pattern) is not None else None
        match = re.search(pattern, self.urls if kind == "url" else self.scripts, re.IGNORECASE)
        if match is None:
            return None
        return (match[1] or "") if match.re.groups else ""


def technology(document: Document, marks: Marks, headers: Mapping[str, str]) -> list[Signal]:
    """What the site is made with; versions where `generator` or a header tells."""
    found = {signal.name: signal for signal in marks.find(TECHNOLOGY)}
    generator = document.meta.get("generator", "")
    for name in found:
        if match := re.match(rf"{name}!?\s*v?(\d[\w.]*)", generator, re.IGNORECASE):
            found[name] = Signal(name, match[1])
    for header in ("server", "x-powered-by"):
        for product in re.findall(r"([A-Za-z][\w.+-]*(?:/[\w.-]+)?)", headers.get(header, ""))[:3]:
            name, _, version = product.partition("/")
            found.setdefault(name.lower(), Signal(name.lower(), version or None))
    return list(found.values())


def social_profiles(document: Document, same_as: list[str]) -> dict[str, str]:
    """Network -> profile. `same_as`: addresses from structured data, which win over links."""
    found: dict[str, str] = {}
    links = [url for href, _ in document.links if (url := document.absolute(href))]
    for url in [*same_as, *links]:
        network = next((name for name, hosts in SOCIAL_HOSTS.items() if _is_host_of(url, hosts)), None)
        if network is not None and network not in found and _is_profile(network, url):
            found[network] = url.split("#")[0][:300]
    return found


def _is_host_of(url: str, hosts: tuple[str, ...]) -> bool:
    host = host_of(url)
    return any(host == one or host.endswith(f".{one}") for one in hosts)


def _is_profile(network: str, url: str) -> bool:
    parts = urlsplit(url)
    path = parts.path.strip("/")
    if network == "youtube" and host_of(url) == "youtu.be":
        return False
    if not path or (path.endswith((".js", ".php")) and not path.startswith("profile.php")):
        return False
    return _NO_PROFILE.search(parts.path) is None


def booking(document: Document, marks: Marks) -> list[Signal]:
    """Booking services, and `own` where the site offers booking by itself."""
    found = marks.find(BOOKING)
    if not found:
        for href, text in document.links:
            if _OWN_BOOKING.search(text) and not href.startswith(("mailto:", "tel:")):
                return [Signal("own", (document.absolute(href) or href)[:300])]
        for node in document.nodes("button, input[type=submit]"):
            if _OWN_BOOKING.search(node.text() or attribute(node, "value")):
                return [Signal("own")]
    return found
