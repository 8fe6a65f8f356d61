"""The same images from a folder, an archive and shards, whole or in part."""

import io
import tarfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from adanat.errors import DataError, StageError
from adanat.evaluation.opening import open_images
from adanat.evaluation.sinks import NpzSink, PngSink
from adanat.evaluation.sources import FirstOf, Item
from PIL import Image

IMAGES = np.random.default_rng(0).integers(0, 256, (7, 6, 5, 3), dtype=np.uint8)
LABELS = np.array([0, 0, 1, 1, 1, 2, 2])


def png(image):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    return buffer.getvalue()


def write_folder(root):
    for index, (image, label) in enumerate(zip(IMAGES, LABELS, strict=True)):
        folder = root / f"class-{label}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{index}.png").write_bytes(png(image))
    return root


def write_npz(root, save=np.savez):
    root.mkdir(exist_ok=True)
    save(root / "images.npz", arr_0=IMAGES, arr_1=LABELS)
    return root / "images.npz"


def write_shards(root):
    root.mkdir()
    for shard, indices in enumerate((range(4), range(4, 7))):
        with tarfile.open(root / f"part-{shard}.tar", "w") as archive:
            for index in indices:
                members = {
                    "png": png(IMAGES[index]),
                    "cls": b"%d" % LABELS[index],
                    "txt": f"image {index}".encode(),
                }
                for ending, data in members.items():
                    entry = tarfile.TarInfo(f"{index:04d}.{ending}")
                    entry.size = len(data)
                    archive.addfile(entry, io.BytesIO(data))
    return root


@pytest.mark.parametrize(
    "write",
    [
        write_folder,
        write_npz,
        lambda root: write_npz(root, np.savez_compressed),
        write_shards,
    ],
    ids=["folder", "npz", "compressed npz", "shards"],
)
def test_every_kind_gives_the_same_images_and_labels(write, tmp_path):
    source = open_images(str(write(tmp_path / "source")))
    assert len(source) == 7
    for start, stop in ((0, 7), (3, 6), (5, 9)):
        items = list(source.items(start, stop))
        np.testing.assert_array_equal([item.image for item in items], IMAGES[start:stop])
        assert [item.label for item in items] == LABELS[start:stop].tolist()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_archive_that_was_cut_off_is_refused(save, tmp_path):
    path = write_npz(tmp_path / "source", save)
    source = open_images(str(path))
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(DataError, match="get it anew"):
        list(source.items(0, 7))
    with pytest.raises(DataError, match="no archive of images"):
        open_images(str(path))


def test_shards_by_pattern_carry_captions(tmp_path):
    source = open_images(str(write_shards(tmp_path / "shards") / "part-1*.tar"))
    assert [item.caption for item in source.items(0, 9)] == ["image 4", "image 5", "image 6"]


def test_shards_are_named_as_webdataset_names_them(tmp_path):
    shards = write_shards(tmp_path / "shards")
    assert len(open_images(str(shards / "part-{0..1}.tar"))) == 7
    write_shards(tmp_path / "more")
    both = open_images(str(tmp_path / "{shards,more}" / "part-1.tar"))
    assert len(both) == 6
    assert both.key != open_images(str(shards / "part-1.tar")).key
    with pytest.raises(DataError, match=r"no shard matches .*other-\*\.tar"):
        open_images(str(shards / "other-*.tar"))
    with pytest.raises(DataError, match=r"part-2\.tar cannot be read"):
        open_images(str(shards / "part-{0..2}.tar"))


def test_a_text_file_beside_an_image_is_its_caption(tmp_path):
    folder = write_folder(tmp_path)
    (folder / "class-0" / "1.txt").write_text("a shoe\n")
    assert [item.caption for item in open_images(str(folder)).items(0, 3)] == [None, "a shoe", None]


def test_the_key_follows_the_content(tmp_path):
    first, second = write_folder(tmp_path / "a"), write_folder(tmp_path / "b")
    assert open_images(str(first)).key == open_images(str(second)).key
    (second / "class-0" / "0.png").write_bytes(png(IMAGES[1]))
    assert open_images(str(first)).key != open_images(str(second)).key


def test_a_changed_caption_is_other_content(tmp_path):
    folder = write_folder(tmp_path)
    bare = open_images(str(folder)).key
    caption = folder / "class-0" / "1.txt"
    caption.write_text("a shoe")
    before = open_images(str(folder)).key
    caption.write_text("a boot")
    assert len({bare, before, open_images(str(folder)).key}) == 3


def test_a_part_has_a_key_of_its_own_and_an_end(tmp_path):
    source = open_images(str(write_folder(tmp_path)))
    part = FirstOf(source, 3)
    assert part.key != source.key
    assert len(list(part.items(0, 7))) == len(part) == 3
    with pytest.raises(DataError, match="8 images asked for, but there are 7 images"):
        FirstOf(source, 8)


def test_what_holds_no_images_is_refused(tmp_path):
    with pytest.raises(DataError, match="holds no images"):
        open_images(str(tmp_path))
    with pytest.raises(DataError, match="there is no"):
        open_images(str(tmp_path / "nowhere"))
    np.savez(tmp_path / "floats.npz", arr_0=np.zeros((2, 4, 4, 3)))
    with pytest.raises(DataError, match="float64 of shape"):
        open_images(str(tmp_path / "floats.npz"))
    np.savez(tmp_path / "other.npz", mu=np.zeros(3))
    with pytest.raises(DataError, match="no archive of images"):
        open_images(str(tmp_path / "other.npz"))


def test_damage_is_reported_with_its_place(tmp_path):
    folder = write_folder(tmp_path / "folder")
    (folder / "class-0" / "1.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"cannot read the image .*1\.png"):
        list(open_images(str(folder)).items(0, 7))
    shards = write_shards(tmp_path / "shards")
    data = (shards / "part-0.tar").read_bytes()
    (shards / "part-0.tar").write_bytes(data.replace(b"\x89PNG", b"\x00PNG", 1))
    with pytest.raises(DataError, match=r"bad sample in .*part-0\.tar, sample '0000'"):
        list(open_images(str(shards)).items(0, 7))


def test_saved_images_are_read_back(tmp_path):
    pngs, archive = PngSink(tmp_path / "pngs", "key"), NpzSink(tmp_path / "all.npz", "key")
    items = [Item(image, int(label)) for image, label in zip(IMAGES, LABELS, strict=True)]
    for sink in (pngs, archive):
        for start in (4, 0):  # processes finish in any order
            assert not sink.has(start, start + 4)
            sink.take(start, items[start : start + 4])
            assert sink.has(start, min(start + 4, 7))
    archive.finish()
    with np.load(tmp_path / "all.npz") as found:
        np.testing.assert_array_equal(found["arr_0"], IMAGES)
        np.testing.assert_array_equal(found["arr_1"], LABELS)
    images = [item.image for item in open_images(str(tmp_path / "pngs")).items(0, 7)]
    np.testing.assert_array_equal(images, IMAGES)
    assert archive.has(0, 7)
    parts = tmp_path / "all.npz.parts"
    assert not parts.exists()
    parts.mkdir()  # as a process leaves them that is killed between joining and deleting
    (parts / "000000000-000000004.npz").touch()
    archive.finish()
    assert not parts.exists()
    with pytest.raises(StageError, match="another source's"):
        PngSink(tmp_path / "pngs", "another key")


def test_processes_may_claim_a_place_at_once(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        for turn in range(20):
            list(pool.map(PngSink, [tmp_path / str(turn)] * 8, ["key"] * 8))
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {".source"}


def test_an_archive_with_a_gap_is_not_written(tmp_path):
    archive = NpzSink(tmp_path / "all.npz", "key")
    archive.take(2, [Item(IMAGES[2])])
    with pytest.raises(DataError, match="do not join"):
        archive.finish()
    with pytest.raises(DataError, match="one size only"):
        archive.take(3, [Item(IMAGES[0]), Item(IMAGES[1][:4])])
