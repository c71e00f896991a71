"""Check a data set's folder, convert what needs converting, and say what to download and where it goes.

    python training/prepare_data.py --help
    python training/prepare_data.py imagenet100 --data ILSVRC2014/Img --out ILSVRC2014/Img-100
    python training/prepare_data.py cub200 --data CUB_200_2011 --out CUB-folders
    python training/prepare_data.py ade20k --data ADEChallengeData2016
    python training/prepare_data.py voc --data VOCdevkit
Downloads nothing. `python -m cast_sdk.training.prepare_data` is the same program.
"""

from __future__ import annotations

import click

from cast_sdk.runtime.commands.program import Group
from cast_sdk.training.data.prepare import bundled as prepare_bundled
from cast_sdk.training.data.prepare import dense as prepare_dense
from cast_sdk.training.data.prepare import imagenet as prepare_imagenet
from cast_sdk.training.data.prepare import packing as prepare_packing
from cast_sdk.training.data.prepare import photographs as prepare_photographs
from cast_sdk.training.data.prepare import taxonomy as prepare_taxonomy


@click.group(cls=Group, help=(__doc__ or "").partition("\n")[0])
def main() -> None:
    pass


COMMANDS = (
    *prepare_imagenet.COMMANDS,
    *prepare_taxonomy.COMMANDS,
    *prepare_dense.COMMANDS,
    *prepare_bundled.COMMANDS,
    *prepare_photographs.COMMANDS,
    *prepare_packing.COMMANDS,
)
for command in COMMANDS:
    main.add_command(command)


if __name__ == "__main__":
    main()
