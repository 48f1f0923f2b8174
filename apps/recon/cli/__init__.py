"""The command line: `python -m apps.recon keygen | sign | submit | jobs | keys | serve | worker | healthy`, and what the parts add."""

from __future__ import annotations

import click

from apps.recon import parts
from apps.recon.cli.client import API_URL, Api
from apps.recon.cli.jobs import jobs
from apps.recon.cli.keys import keys
from apps.recon.cli.scanner import keygen, sign, submit
from apps.recon.cli.serving import healthy, serve, worker
from apps.serving.secrets import sendable


class _WithParts(click.Group):
    """Asks the parts for their commands when somebody asks for a command, not while this package is imported: parts
    import it themselves, and whichever of them came first would not be ready to answer."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        self._collect()
        return super().list_commands(ctx)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        self._collect()
        return super().get_command(ctx, cmd_name)

    def _collect(self) -> None:
        for command in parts.collect("commands"):
            self.add_command(command)


@click.group(cls=_WithParts, context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": None})
@click.option("--url", envvar="RECON_URL", default=API_URL, show_default=True, help="The API of recon (RECON_URL).")
@click.option("--token", envvar="RECON_ADMIN_TOKEN", callback=sendable,
              help="Admin token, for keys and approvals (RECON_ADMIN_TOKEN).")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Answers as JSON on standard output, for programs.")
@click.pass_context
def recon(context: click.Context, url: str, token: str | None, as_json: bool) -> None:
    """Signed port scans in, one graph of hosts out; campaigns, enrichment and threats on top."""
    context.obj = Api(url, token, as_json=as_json)


for command in (keygen, sign, submit, jobs, keys, serve, worker, healthy):
    recon.add_command(command)


def main() -> None:
    """Entry point. Exit status 0; 1 when it failed; 2 for a wrong request or option."""
    recon.main(prog_name="python -m apps.recon")
