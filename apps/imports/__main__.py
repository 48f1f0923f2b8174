"""`python -m apps.imports`."""

from apps.imports.cli import main

main(prog_name="imports")
