"""cast-doctor: what this installation has, lacks, and how to put it right."""

from __future__ import annotations

import sys

import click

from cast_sdk.runtime.commands.common import clean_exit, common_options
from cast_sdk.runtime.commands.program import Group

_MARKS = {"ok": ("ok", "green"), "info": ("--", "blue"), "warning": ("!!", "yellow"), "problem": ("XX", "red")}


@click.group(invoke_without_command=True, cls=Group)
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@click.pass_context
@common_options
@clean_exit()
def main(context: click.Context, as_json: bool) -> None:
    """Check this installation and name the command that fixes each trouble.

    ok: works. --: optional, not there. !!: will cause trouble. XX: needed and not working (exit code 1).
    """
    if context.invoked_subcommand is not None:
        return
    import dataclasses
    import json

    from cast_sdk.runtime.commands.installation import examine

    findings = examine()
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(finding) for finding in findings], indent=2))
    else:
        width = max(len(finding.name) for finding in findings)
        for finding in findings:
            mark, colour = _MARKS[finding.status]
            click.echo(f"{click.style(mark, fg=colour, bold=True)}  {finding.name:<{width}}  {finding.found}")
            if finding.remedy:
                click.echo(f"{'':{width + 4}}  -> {finding.remedy}")
    if any(finding.status == "problem" for finding in findings):
        sys.exit(1)


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print the table as JSON.")
@clean_exit()
def models(as_json: bool) -> None:
    """List the published weights with their numbers, by the names that commands, Runtime and load_model take."""
    import dataclasses
    import json

    from cast_sdk.hub.names import BUNDLED, describe_digest, known_digest, source_of
    from cast_sdk.published import PUBLISHED
    from cast_sdk.system.installing import pip_install

    if as_json:
        rows = [
            {
                **dataclasses.asdict(row),
                "results": dict(row.results),
                "uri": row.uri,
                "sha256_kept": known_digest(source_of(row)),
            }
            for row in PUBLISHED
        ]
        click.echo(json.dumps(rows, indent=2))
        return
    for row in PUBLISHED:
        click.echo(f"{click.style(row.name, bold=True)}  {row.title}: {row.trained_on} (opens as {row.model})")
        for what, value in row.results:
            click.echo(f"    {value:>5}  {what}")
        click.echo(f"    {row.uri}\n    {describe_digest(row)}")
    click.echo(f"{click.style(BUNDLED, bold=True)}  in the package, for trying things without a network")
    first = PUBLISHED[0].name
    click.echo(
        f"\nUse: cast-segment --model {first} PHOTO   cast-export --ckpt {first}   cast_sdk.Runtime({first!r})"
        f"\nThe first time needs a network and {pip_install('hub')}; Runtime also torch, to export it once."
    )


if __name__ == "__main__":
    main()
