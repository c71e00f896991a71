"""cast-doctor: what this installation has, lacks, and how to put it right."""

from __future__ import annotations

import sys

import click

from cast_sdk.runtime.cli_common import clean_exit

_MARKS = {"ok": ("ok", "green"), "info": ("--", "blue"), "warning": ("!!", "yellow"), "problem": ("XX", "red")}


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@click.pass_context
@clean_exit
def main(context: click.Context, as_json: bool) -> None:
    """Check this installation and name the command that fixes each trouble.

    ok: works. --: optional, not there. !!: will cause trouble. XX: needed and not working (exit code 1).
    """
    if context.invoked_subcommand is not None:
        return
    import dataclasses
    import json

    from cast_sdk.runtime.doctor import examine

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


if __name__ == "__main__":
    main()
