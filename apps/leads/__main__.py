"""`python -m apps.leads`."""

from apps.leads.cli import main

main(prog_name="leads")
