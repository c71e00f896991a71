"""NumPy files of strangers."""

from __future__ import annotations

import numpy as np
import pytest

from cast_sdk.errors import InputError
from cast_sdk.training.data.arrays import read_array, read_arrays


def with_header(path, header):
    text = header.encode().ljust(117) + b"\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(64))
    return path


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f8', 'fortran_order': False, 'shape': (3,",
        "(((",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999999999999,)}",
        "{'descr': '|O', 'fortran_order': False, 'shape': (1,)}",
        "{'descr': 5, 'fortran_order': False, 'shape': (1,)}",
        "{'descr': '<f8'}",
        "1 +",
        "",
    ],
)
def test_a_damaged_header_is_one_message(tmp_path, header):
    with pytest.raises(InputError, match=r"scores\.npy holds no scores"):
        read_array(with_header(tmp_path / "scores.npy", header), "no scores")


def test_a_damaged_archive_is_one_message(tmp_path):
    file = tmp_path / "a.npz"
    np.savez(file, first=np.arange(9), second=np.array([{}], object))
    assert read_arrays(file, ["first"])[0].tolist() == list(range(9))
    for names in (["second"], ["third"]):
        with pytest.raises(InputError, match=r"a\.npz holds no such arrays"):
            read_arrays(file, names)
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(InputError, match=r"a\.npz holds"):
        read_arrays(file, ["first"])
