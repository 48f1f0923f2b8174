"""`python -m apps.leads.web page.html`: what the scanner makes of one page. See `cli.py`."""

from __future__ import annotations

import sys

from apps.leads.web.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
