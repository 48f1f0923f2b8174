"""Which vendor and product, in the words of the vulnerability database, a product name or a banner stands for. Tables.

A banner is what a service said first, or a header of its answer, as text. Patterns are tried in order: the special
before the general (MariaDB's greeting looks like MySQL's, Tomcat's header begins like Apache's).
"""

from __future__ import annotations

import re
from typing import NamedTuple

BANNER_CHARS_MAX = 2048

Name = tuple[str, str, str]
"""Part, vendor, product."""

_OPENSSH: Name = ("a", "openbsd", "openssh")
_NGINX: Name = ("a", "f5", "nginx")
_APACHE: Name = ("a", "apache", "http_server")
_IIS: Name = ("a", "microsoft", "internet_information_services")
_LIGHTTPD: Name = ("a", "lighttpd", "lighttpd")
_CADDY: Name = ("a", "caddyserver", "caddy")
_MYSQL: Name = ("a", "oracle", "mysql")
_POSTGRESQL: Name = ("a", "postgresql", "postgresql")
_MARIADB: Name = ("a", "mariadb", "mariadb")
_MONGODB: Name = ("a", "mongodb", "mongodb")
_REDIS: Name = ("a", "redis", "redis")
_TOMCAT: Name = ("a", "apache", "tomcat")
_JETTY: Name = ("a", "eclipse", "jetty")
_PROFTPD: Name = ("a", "proftpd", "proftpd")
_VSFTPD: Name = ("a", "vsftpd_project", "vsftpd")
_BIND: Name = ("a", "isc", "bind")
_DNSMASQ: Name = ("a", "thekelleys", "dnsmasq")
_POSTFIX: Name = ("a", "postfix", "postfix")
_EXIM: Name = ("a", "exim", "exim")
_SENDMAIL: Name = ("a", "sendmail", "sendmail")
_SQUID: Name = ("a", "squid-cache", "squid")
_VARNISH: Name = ("a", "varnish-software", "varnish_cache")
_CISCO_IOS: Name = ("o", "cisco", "ios")
_MEMCACHED: Name = ("a", "memcached", "memcached")
_CUPS: Name = ("a", "apple", "cups")

PRODUCTS: dict[str, tuple[Name, bool]] = {
    "openssh": (_OPENSSH, True),
    "nginx": (_NGINX, True),
    "apache httpd": (_APACHE, True),
    "microsoft iis httpd": (_IIS, True),
    "lighttpd": (_LIGHTTPD, True),
    "caddy httpd": (_CADDY, True),
    "caddy": (_CADDY, True),
    "mysql": (_MYSQL, True),
    "postgresql db": (_POSTGRESQL, True),
    "postgresql": (_POSTGRESQL, True),
    "mariadb": (_MARIADB, True),
    "mongodb": (_MONGODB, True),
    "redis": (_REDIS, True),
    "redis key-value store": (_REDIS, True),
    "apache tomcat": (_TOMCAT, True),
    "apache tomcat/coyote jsp engine": (_TOMCAT, False),
    "jetty": (_JETTY, True),
    "proftpd": (_PROFTPD, True),
    "vsftpd": (_VSFTPD, True),
    "isc bind": (_BIND, True),
    "dnsmasq": (_DNSMASQ, True),
    "postfix smtpd": (_POSTFIX, True),
    "exim smtpd": (_EXIM, True),
    "sendmail": (_SENDMAIL, True),
    "squid http proxy": (_SQUID, True),
    "varnish": (_VARNISH, True),
    "varnish http accelerator": (_VARNISH, True),
    "cisco ssh": (_CISCO_IOS, False),
    "memcached": (_MEMCACHED, True),
    "cups": (_CUPS, True),
}
"""Product as nmap spells it, lower case -> its name, and whether nmap's version is the product's own.

It is not for two: what nmap reports for Coyote is the connector's version, and for Cisco the SSH server's.
"""

RENAMED: dict[tuple[str, str], tuple[str, str]] = {
    ("igor_sysoev", "nginx"): ("f5", "nginx"),
    ("nginx", "nginx"): ("f5", "nginx"),
    ("mysql", "mysql"): ("oracle", "mysql"),
    ("beasts", "vsftpd"): ("vsftpd_project", "vsftpd"),
    ("mortbay", "jetty"): ("eclipse", "jetty"),
    ("squid", "squid"): ("squid-cache", "squid"),
    ("microsoft", "iis"): ("microsoft", "internet_information_services"),
}
"""Vendor and product that nmap still writes -> those that the vulnerability database uses now."""


class _Pattern(NamedTuple):
    product: str
    """As nmap spells it; lower case in `PRODUCTS`."""
    text: re.Pattern[str]
    """Its group, if any, is the version."""


def _pattern(product: str, text: str) -> _Pattern:
    return _Pattern(product, re.compile(text, re.IGNORECASE))


# A version in a banner: digits first, no blanks, no slash.
_V = r"(\d[\w.\-]*)"

BANNERS: tuple[_Pattern, ...] = (
    _pattern("OpenSSH", rf"\bSSH-[\d.]+-OpenSSH_(?:for_Windows_)?{_V}"),
    _pattern("Cisco SSH", r"\bSSH-[\d.]+-Cisco-"),
    _pattern("nginx", rf"\bnginx(?:/{_V})?"),
    _pattern("Apache Tomcat", rf"\bApache Tomcat(?:/{_V})?"),
    _pattern("Apache Tomcat", r"\bApache-Coyote/"),
    _pattern("Apache httpd", rf"\bApache(?:/{_V})(?!\w)"),
    _pattern("Apache httpd", r"\bServer: Apache\b"),
    _pattern("Microsoft IIS httpd", rf"\bMicrosoft-IIS(?:/{_V})?"),
    _pattern("lighttpd", rf"\blighttpd(?:/{_V})?"),
    _pattern("Caddy httpd", rf"\bCaddy(?:/v?{_V})?"),
    _pattern("Jetty", rf"\bJetty(?:\(|/){_V}"),
    _pattern("Squid http proxy", rf"\bsquid(?:/{_V})"),
    _pattern("Varnish", rf"\bVarnish/{_V}"),
    _pattern("Varnish", r"\bVarnish\b"),
    # MariaDB says 5.5.5- first, so that old replicas accept it.
    _pattern("MariaDB", r"(?:5\.5\.5-)?(\d+\.\d+\.\d+)-MariaDB"),
    _pattern("MySQL", r"\A.{0,4}(?:\\x00)*(?:\\x0a|\n|\x0a)(\d\.\d+\.\d+)(?:[-\w.]*)(?:\\x00|\x00)"),
    _pattern("MySQL", rf"\bMySQL (?:Community Server )?{_V}"),
    _pattern("PostgreSQL DB", rf"\bPostgreSQL {_V}"),
    _pattern("MongoDB", rf"\bMongoDB(?: server)?(?: version)?:? ?v?{_V}"),
    _pattern("Redis key-value store", rf"\bredis_version:{_V}"),
    _pattern("ProFTPD", rf"\bProFTPD(?: {_V})?"),
    _pattern("vsftpd", rf"\bvsFTPd {_V}"),
    _pattern("ISC BIND", rf"\bBIND {_V}"),
    _pattern("dnsmasq", rf"\bdnsmasq[- ]{_V}"),
    _pattern("Postfix smtpd", rf"\bPostfix(?: {_V})?"),
    _pattern("Exim smtpd", rf"\bExim {_V}"),
    _pattern("Sendmail", rf"\bSendmail(?: {_V})?"),
)


class Identity(NamedTuple):
    """What a service says it is."""

    product: str
    version: str | None


def identify(banner: str) -> Identity | None:
    """What a banner gives away, in nmap's words. None when no pattern knows it."""
    text = banner[:BANNER_CHARS_MAX]
    for pattern in BANNERS:
        found = pattern.text.search(text)
        if found:
            return Identity(pattern.product, found[1] if pattern.text.groups else None)
    return None
