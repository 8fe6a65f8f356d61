"""Broken shards, as of CC3M: each docstring is a row of docs/broken-inputs.md."""

import io
import os
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from adanat.errors import DataError
from adanat.prepare import PreparedIndex, PreparedSplit, prepare_cc3m
from adanat.prepare.scanning import scan_shard
from adanat.recipes.benchmarks.published_formats import jpeg, write_img2dataset
from tiny_data_sets import SIZE, picture, preparation, prepare_shards, rewrite_tar, write_tar


def cc3m_with(
    cc3m: Path, tmp_path: Path, change: Callable[[dict[str, bytes]], None]
) -> PreparedIndex:
    rewrite_tar(cc3m / "train" / "00000.tar", change)
    return prepare_shards(cc3m, tmp_path)


SCRIPTS = (
    "Ein Apfel, größer",
    "яблоко",
    "りんごの絵",
    "蘋果",
    "تفاحة حمراء",
    "סֵפֶר",
    "सेब",
    "🍎🏽 זה",
    "a\u0301",
)


def test_every_script(tmp_path: Path) -> None:
    """Captions in any script, with emoji and combining marks | kept as they are."""
    write_img2dataset(tmp_path / "train", [picture(i, 0, text) for i, text in enumerate(SCRIPTS)])
    write_img2dataset(tmp_path / "val", [picture(70, 0, SCRIPTS[0])])
    prepare_shards(tmp_path, tmp_path)
    found: list[str] = []
    for split in ("fit", "validation"):
        data = PreparedSplit(tmp_path / "out", split, SIZE)
        found += [captions[0] for captions in data.captions(range(len(data)))]
    assert sorted(found) == sorted(SCRIPTS)


def test_line_breaks(cc3m: Path, tmp_path: Path) -> None:
    """Line breaks and tabs in a caption | blanks."""
    cc3m_with(cc3m, tmp_path, lambda f: f.update({"000000000.txt": b" a\r\n red\t\tapple \n"}))
    found = []
    for split in ("fit", "validation"):
        data = PreparedSplit(tmp_path / "out", split, SIZE)
        found += data.captions(range(len(data)))
    assert ("a red apple",) in found


def test_failed_downloads(cc3m: Path, tmp_path: Path) -> None:
    """Pictures that img2dataset could not download | counted as missing."""
    assert prepare_shards(cc3m, tmp_path).counts["missing"] == 2


def test_cut_shard(cc3m: Path, tmp_path: Path) -> None:
    """A shard that is cut in the middle | refused, with its last whole member."""
    path = cc3m / "train" / "00000.tar"
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(DataError, match=r"00000.tar is cut off .* after member '000000000.*'"):
        prepare_shards(cc3m, tmp_path)


def test_empty_shard(cc3m: Path, tmp_path: Path) -> None:
    """A shard of zero bytes | refused, it is named."""
    (cc3m / "train" / "00000.tar").write_bytes(b"")
    with pytest.raises(DataError, match=r"00000.tar is cut off .*empty file"):
        prepare_shards(cc3m, tmp_path)


def test_missing_shard(cc3m: Path, tmp_path: Path) -> None:
    """A shard of the list that is not there | refused, it is named."""
    with pytest.raises(DataError, match=r"cannot read .*00001.tar: No such file"):
        prepare_cc3m(
            [str(cc3m / "train" / "{00000..00001}.tar")],
            [str(cc3m / "val" / "00000.tar")],
            preparation(tmp_path),
        )


def test_no_match(tmp_path: Path) -> None:
    """A wildcard that matches nothing | refused."""
    with pytest.raises(DataError, match=r"no shard matches .*\*.tar"):
        prepare_shards(tmp_path, tmp_path)


def test_sample_without_image(cc3m: Path, tmp_path: Path) -> None:
    """A sample without a picture | skipped, counted."""
    index = cc3m_with(cc3m, tmp_path, lambda files: files.pop("000000001.jpg"))
    assert index.counts["skipped"] == {"no image member": 1}


def test_sample_without_caption(cc3m: Path, tmp_path: Path) -> None:
    """A sample without a caption | skipped, counted."""
    index = cc3m_with(cc3m, tmp_path, lambda files: files.pop("000000001.txt"))
    assert index.counts["skipped"] == {"no .txt member": 1}


def test_empty_caption(cc3m: Path, tmp_path: Path) -> None:
    """A caption without a letter | skipped, counted."""
    index = cc3m_with(cc3m, tmp_path, lambda f: f.update({"000000001.txt": b" \n\t"}))
    assert index.counts["skipped"] == {"the caption is empty": 1}


def test_caption_encoding(cc3m: Path, tmp_path: Path) -> None:
    """A caption that is not UTF-8 | skipped, counted."""
    index = cc3m_with(
        cc3m, tmp_path, lambda f: f.update({"000000001.txt": "größe".encode("cp1252")})
    )
    assert index.counts["skipped"] == {"the caption is not UTF-8": 1}


def test_broken_picture_in_a_shard(cc3m: Path, tmp_path: Path) -> None:
    """A picture in a shard that cannot be decoded | skipped, counted."""
    index = cc3m_with(
        cc3m, tmp_path, lambda f: f.update({"000000001.jpg": f["000000001.jpg"][:300]})
    )
    assert index.counts["skipped"] == {"the image cannot be decoded": 1}


def test_two_members(cc3m: Path, tmp_path: Path) -> None:
    """Two members of one name in a shard | the first is used, counted."""
    with tarfile.open(cc3m / "train" / "00000.tar", "a") as archive:
        info = tarfile.TarInfo("000000001.txt")
        archive.addfile(info, io.BytesIO())
    index = prepare_shards(cc3m, tmp_path)
    assert index.counts["skipped"] == {"two .txt members, the first one is taken": 1}
    assert index.splits["fit"] == 3


def test_equal_keys(cc3m: Path, tmp_path: Path) -> None:
    """One key in two shards | the first is used, the second skipped and counted."""
    first = (cc3m / "train" / "00000.tar").read_bytes()
    (cc3m / "train" / "00001.tar").write_bytes(first)
    index = prepare_shards(cc3m, tmp_path)
    assert index.counts["skipped"] == {"the key occurs twice": 5}
    assert index.splits["fit"] == 3


def test_damaged_statistics(cc3m: Path, tmp_path: Path) -> None:
    """Damaged statistics beside a shard | refused, they are named."""
    (cc3m / "train" / "00000_stats.json").write_text("{")
    with pytest.raises(DataError, match=r"00000_stats.json is damaged"):
        prepare_shards(cc3m, tmp_path)


def test_label_out_of_range(tmp_path: Path) -> None:
    """A .cls label outside the classes | skipped, counted."""
    write_tar(tmp_path / "a.tar", {"0.jpg": jpeg(picture(1).image), "0.cls": b"7"})
    found = scan_shard(tmp_path / "a.tar", 5, True)
    assert found.skipped == ("0: the label is out of range: 7, not in 0 to 4",)


def test_label_that_is_no_number(tmp_path: Path) -> None:
    """A .cls member that is no number | skipped, counted."""
    write_tar(tmp_path / "a.tar", {"0.jpg": jpeg(picture(1).image), "0.cls": b"cat"})
    assert scan_shard(tmp_path / "a.tar", 5, True).skipped == ("0: the label is no number: b'cat'",)


def test_pickle(cc3m: Path, tmp_path: Path) -> None:
    """A pickled member that would run a program | never read."""

    class Evil:
        def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
            return os.system, (f"touch {tmp_path / 'pwned'}",)

    cc3m_with(cc3m, tmp_path, lambda files: files.update({"000000001.pkl": pickle.dumps(Evil())}))
    data = PreparedSplit(tmp_path / "out", "fit", SIZE)
    data.images(range(len(data)))
    assert not (tmp_path / "pwned").exists()


def test_names_that_climb(cc3m: Path, tmp_path: Path) -> None:
    """Member names that lead out of the folder, links and devices | nothing is ever unpacked."""
    with tarfile.open(cc3m / "train" / "00000.tar", "a") as archive:
        link = tarfile.TarInfo("link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
        climbing = tarfile.TarInfo("../../../climbed.txt")
        climbing.size = 1
        archive.addfile(climbing, io.BytesIO(b"x"))
    index = prepare_shards(cc3m, tmp_path)
    assert index.counts["skipped"] == {"no image member": 1}
    assert not list(tmp_path.rglob("climbed*"))
