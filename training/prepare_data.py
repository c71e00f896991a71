"""Check a data set's folder, convert what needs converting, and say what to download and where it goes.

    python training/prepare_data.py --help
    python training/prepare_data.py ade20k --data ADEChallengeData2016
    python training/prepare_data.py voc --data VOCdevkit
Downloads nothing. `python -m cast_sdk.training.prepare_data` is the same program.
"""

from __future__ import annotations

import click

from cast_sdk.training.prepare_dense import COMMANDS


@click.group(help=(__doc__ or "").partition("\n")[0])
def main() -> None:
    pass


for command in COMMANDS:
    main.add_command(command)


if __name__ == "__main__":
    main()
