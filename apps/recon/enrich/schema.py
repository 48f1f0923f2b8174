"""What enrichment adds to the database: places, autonomous systems, vulnerabilities, and what was looked up when."""

from __future__ import annotations

from typing import Literal

from apps.recon.migrations import Migration

KINDS: tuple[Literal["asn", "geo", "vuln"], ...] = ("asn", "geo", "vuln")
"""What can be enriched: who announces an address, where it is, which vulnerabilities its services have."""

_PLACES = """
DEFINE TABLE OVERWRITE country SCHEMAFULL;
DEFINE FIELD OVERWRITE cc ON country TYPE string ASSERT string::len($value) = 2;
DEFINE FIELD OVERWRITE name ON country TYPE string;
DEFINE INDEX OVERWRITE country_cc ON country FIELDS cc UNIQUE;

DEFINE TABLE OVERWRITE region SCHEMAFULL;
DEFINE FIELD OVERWRITE name ON region TYPE string;
DEFINE FIELD OVERWRITE cc ON region TYPE string;
DEFINE FIELD OVERWRITE code ON region TYPE string;
DEFINE INDEX OVERWRITE region_name ON region FIELDS name;

DEFINE TABLE OVERWRITE city SCHEMAFULL;
DEFINE FIELD OVERWRITE name ON city TYPE string;
DEFINE FIELD OVERWRITE cc ON city TYPE string;
DEFINE FIELD OVERWRITE lat ON city TYPE option<float>;
DEFINE FIELD OVERWRITE lon ON city TYPE option<float>;
DEFINE INDEX OVERWRITE city_name ON city FIELDS name;

DEFINE TABLE OVERWRITE asn SCHEMAFULL;
DEFINE FIELD OVERWRITE number ON asn TYPE int ASSERT $value >= 0;
DEFINE FIELD OVERWRITE org ON asn TYPE option<string>;
DEFINE FIELD OVERWRITE country ON asn TYPE option<string>;
DEFINE INDEX OVERWRITE asn_number ON asn FIELDS number UNIQUE;

DEFINE TABLE OVERWRITE IN_CITY TYPE RELATION IN host OUT city ENFORCED SCHEMAFULL;
DEFINE TABLE OVERWRITE IN_REGION TYPE RELATION IN host | city OUT region ENFORCED SCHEMAFULL;
DEFINE TABLE OVERWRITE IN_COUNTRY TYPE RELATION IN host | city | region OUT country ENFORCED SCHEMAFULL;
DEFINE TABLE OVERWRITE IN_ASN TYPE RELATION IN host OUT asn ENFORCED SCHEMAFULL;
DEFINE INDEX OVERWRITE host_city ON host FIELDS city;
DEFINE INDEX OVERWRITE host_region ON host FIELDS region;
"""

_VULNERABILITIES = """
DEFINE INDEX OVERWRITE evidenced_by_port ON EVIDENCED_BY FIELDS port;

DEFINE TABLE OVERWRITE vuln SCHEMAFULL;
DEFINE FIELD OVERWRITE cve_id ON vuln TYPE string;
DEFINE FIELD OVERWRITE cvss ON vuln TYPE option<float> ASSERT $value = NONE OR ($value >= 0 AND $value <= 10);
DEFINE FIELD OVERWRITE cvss_version ON vuln TYPE option<string>;
DEFINE FIELD OVERWRITE severity ON vuln TYPE option<string>
    ASSERT $value = NONE OR $value IN ['NONE', 'LOW', 'MEDIUM', 'HIGH', 'CRITICAL'];
DEFINE FIELD OVERWRITE kev_flag ON vuln TYPE bool DEFAULT false;
DEFINE FIELD OVERWRITE first_seen ON vuln TYPE datetime;
DEFINE FIELD OVERWRITE last_updated ON vuln TYPE datetime;
DEFINE INDEX OVERWRITE vuln_cve_id ON vuln FIELDS cve_id UNIQUE;
DEFINE INDEX OVERWRITE vuln_kev_flag ON vuln FIELDS kev_flag;

DEFINE ANALYZER OVERWRITE advisory TOKENIZERS blank, punct FILTERS lowercase, ascii, snowball(english);
DEFINE TABLE OVERWRITE vuln_doc SCHEMAFULL;
DEFINE FIELD OVERWRITE cve_id ON vuln_doc TYPE string;
DEFINE FIELD OVERWRITE title ON vuln_doc TYPE string;
DEFINE FIELD OVERWRITE summary ON vuln_doc TYPE string;
DEFINE FIELD OVERWRITE text ON vuln_doc TYPE string;
DEFINE FIELD OVERWRITE cvss ON vuln_doc TYPE option<float>;
DEFINE FIELD OVERWRITE cpe ON vuln_doc TYPE array<string> DEFAULT [];
DEFINE FIELD OVERWRITE exploit_refs ON vuln_doc TYPE array<string> DEFAULT [];
DEFINE FIELD OVERWRITE published_date ON vuln_doc TYPE datetime;
DEFINE FIELD OVERWRITE last_modified ON vuln_doc TYPE datetime;
DEFINE INDEX OVERWRITE vuln_doc_cve_id ON vuln_doc FIELDS cve_id UNIQUE;
DEFINE INDEX OVERWRITE vuln_doc_text ON vuln_doc FIELDS text SEARCH ANALYZER advisory BM25(1.2, 0.75);

DEFINE TABLE OVERWRITE AFFECTED_BY TYPE RELATION IN service OUT vuln ENFORCED SCHEMAFULL;
DEFINE FIELD OVERWRITE confidence ON AFFECTED_BY TYPE float ASSERT $value > 0 AND $value <= 1;
DEFINE FIELD OVERWRITE conditional ON AFFECTED_BY TYPE bool;
DEFINE FIELD OVERWRITE cpe ON AFFECTED_BY TYPE string;
DEFINE FIELD OVERWRITE first_detected ON AFFECTED_BY TYPE datetime;
DEFINE FIELD OVERWRITE last_confirmed ON AFFECTED_BY TYPE datetime;
"""

# `lookup` is the cache: what a source said about an address, and when. `enrichment` is one run, as the API shows it.
_BOOKS = f"""
DEFINE TABLE OVERWRITE lookup SCHEMAFULL;
DEFINE FIELD OVERWRITE kind ON lookup TYPE string ASSERT $value IN ['asn', 'geo'];
DEFINE FIELD OVERWRITE address ON lookup TYPE string;
DEFINE FIELD OVERWRITE source ON lookup TYPE string;
DEFINE FIELD OVERWRITE result ON lookup FLEXIBLE TYPE option<object>;
DEFINE FIELD OVERWRITE looked_up_at ON lookup TYPE datetime;

DEFINE TABLE OVERWRITE enrichment SCHEMAFULL;
DEFINE FIELD OVERWRITE job_id ON enrichment TYPE option<string>;
DEFINE FIELD OVERWRITE invocation_id ON enrichment TYPE option<string>;
DEFINE FIELD OVERWRITE kinds ON enrichment TYPE array<string> ASSERT $value ALLINSIDE {list(KINDS)};
DEFINE FIELD OVERWRITE state ON enrichment TYPE string ASSERT $value IN ['running', 'completed', 'failed', 'cancelled'];
DEFINE FIELD OVERWRITE host_count ON enrichment TYPE int DEFAULT 0;
DEFINE FIELD OVERWRITE totals ON enrichment FLEXIBLE TYPE object DEFAULT {{}};
DEFINE FIELD OVERWRITE error_message ON enrichment TYPE option<string>;
DEFINE FIELD OVERWRITE started_at ON enrichment TYPE datetime DEFAULT time::now() READONLY;
DEFINE FIELD OVERWRITE updated_at ON enrichment TYPE datetime VALUE time::now();
DEFINE FIELD OVERWRITE finished_at ON enrichment TYPE option<datetime>;
DEFINE INDEX OVERWRITE enrichment_started_at ON enrichment FIELDS started_at;

DEFINE TABLE OVERWRITE catalogue SCHEMAFULL;
DEFINE FIELD OVERWRITE version ON catalogue TYPE string;
"""

MIGRATIONS = [
    Migration(100, "places and autonomous systems", _PLACES),
    Migration(101, "vulnerabilities", _VULNERABILITIES),
    Migration(102, "lookups and runs of enrichment", _BOOKS),
]
