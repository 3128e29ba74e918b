"""Files are written whole or not at all, and what keeps them from it names them."""

import os
from pathlib import Path

import pytest

from nfnet_eqx._files import replacing

FULL = Path("/dev/full")  # Linux's own: every write finds the disk full


def test_a_file_is_replaced_when_it_is_whole(tmp_path: Path):
    file = tmp_path / "file"
    file.write_text("old")
    with replacing(file) as temporary:
        temporary.write_text("new")
        assert file.read_text() == "old"
    assert file.read_text() == "new" and os.listdir(tmp_path) == ["file"]


@pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")
def test_a_failed_write_names_the_file_that_it_was_for_and_keeps_the_old_one(tmp_path: Path):
    file = tmp_path / "file"
    file.write_text("old")
    with pytest.raises(OSError, match="No space left") as error, replacing(file) as temporary:
        temporary.symlink_to(FULL)
        temporary.write_text("new")
    assert error.value.filename == str(file)
    assert file.read_text() == "old" and os.listdir(tmp_path) == ["file"]
