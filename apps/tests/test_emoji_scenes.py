"""Captioned pictures of emoji: what they say is what they show, and the same seed repeats them."""

import io
import json
import re
import tarfile
from pathlib import Path

import numpy as np
import pytest
from adanat.cli import main
from adanat.data import (
    GROUNDS,
    EmojiFont,
    Scene,
    emoji_groups,
    load_split,
    make_emoji_scenes,
    paint,
    random_scene,
)
from adanat.data.emoji import Emoji
from adanat.data.emoji_scenes import near_misses
from adanat.errors import DataError
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

NUM_IMAGES = {"fit": 12, "validation": 5, "test": 4}
NUMBERS = {"a": 1, "an": 1, "two": 2, "three": 3, "four": 4}
FIGURE = r"(a|an|two|three|four) (small |large |)(tilted |upside-down |)([a-zA-Z -]+?)"
CAPTION = re.compile(
    rf"{FIGURE}(?: (left of|right of|above|below) {FIGURE})? on (a|an) ([a-z ]+) ground"
)


@pytest.fixture(scope="module")
def font() -> EmojiFont:
    try:
        return EmojiFont()
    except DataError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory, font: EmojiFont) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    make_emoji_scenes(folder, image_size=32, num_images=NUM_IMAGES, seed=3, font=font)
    return folder


def scene_of(seed: int) -> Scene:
    return random_scene(np.random.default_rng(seed))


def test_names_are_short_and_unambiguous() -> None:
    emoji = [entry for group in emoji_groups().values() for entry in group]
    for field in ("character", "name", "plural"):
        values = [getattr(entry, field) for entry in emoji]
        assert len(set(values)) == len(values)
    assert all(len(entry.name.split()) <= 3 for entry in emoji)
    assert min(len(group) for group in emoji_groups().values()) >= 10


@given(st.integers(0, 2**32))
def test_a_caption_says_what_is_where(seed: int) -> None:
    scene = scene_of(seed)
    words = CAPTION.fullmatch(scene.caption)
    assert words is not None, scene.caption
    *figures, article, ground = words.groups()
    assert ground in GROUNDS
    assert article == ("an" if ground[0] in "aeiou" else "a")
    assert np.abs(np.subtract(scene.colour, GROUNDS[ground])).max() <= 10
    relation = figures[4] or ""
    parsed = [figures[:4], figures[5:]][: len(scene.figures)]
    assert 1 <= sum(len(figure.placements) for figure in scene.figures) <= 4
    for figure, (count, size, pose, noun) in zip(scene.figures, parsed, strict=True):
        assert len(figure.placements) == NUMBERS[count]
        assert (figure.size, figure.pose) == (size.strip(), pose.strip())
        assert noun == (figure.emoji.name if NUMBERS[count] == 1 else figure.emoji.plural)
    if relation:
        first, second = (
            np.array([(place.x, place.y) for place in figure.placements])
            for figure in scene.figures
        )
        axis = 0 if "of" in relation else 1
        if relation in ("right of", "below"):
            first, second = second, first
        assert first[:, axis].max() < second[:, axis].min()


@given(st.integers(0, 2**32))
def test_the_label_is_the_group_named_first(seed: int) -> None:
    scene = scene_of(seed)
    group = list(emoji_groups().values())[scene.label]
    assert scene.figures[0].emoji in group


def test_near_misses_are_wrong_in_one_thing() -> None:
    captions = [
        "a red apple left of two fish on a dark blue ground",
        "an owl on a dark blue ground",
        "a key above a gem on an orange ground",
    ]
    assert near_misses(captions) == {
        "ground": {
            1: "an owl on an orange ground",
            2: "a key above a gem on a dark blue ground",
        },
        "figures": {
            0: "an owl on a dark blue ground",
            1: "a key above a gem on a dark blue ground",
            2: "a red apple left of two fish on an orange ground",
        },
        "relation": {
            0: "a red apple right of two fish on a dark blue ground",
            2: "a key below a gem on an orange ground",
        },
    }


@pytest.mark.parametrize("size", [32, 77, 512])
def test_pictures_have_their_size_and_ground(size: int, font: EmojiFont) -> None:
    scene = scene_of(4)  # one star in the middle
    picture = np.asarray(paint(scene, size, font))
    assert picture.shape == (size, size, 3)
    assert picture[0, 0].tolist() == list(scene.colour)
    assert (picture != np.array(scene.colour)).any(axis=-1).mean() > 0.1


def test_an_emoji_lies_where_its_scene_says(font: EmojiFont) -> None:
    for seed in range(40):
        scene = scene_of(seed)
        (figure, *others) = scene.figures
        if others or len(figure.placements) != 1:
            continue
        picture = np.asarray(paint(scene, 128, font)).astype(int)
        rows, columns = np.nonzero(np.abs(picture - np.array(scene.colour)).max(axis=-1) > 8)
        place = figure.placements[0]
        centre = ((columns.min() + columns.max()) / 256, (rows.min() + rows.max()) / 256)
        assert np.abs(np.subtract(centre, (place.x, place.y))).max() < 0.12


def test_every_emoji_is_drawn_in_colour(font: EmojiFont) -> None:
    for group in emoji_groups().values():
        for emoji in group:
            picture = font.draw(emoji)
            assert picture.width == picture.height
            colours = picture.getcolors(maxcolors=picture.width**2)
            assert len({colour for _, colour in colours if colour[3] == 255}) > 5


def test_the_same_seed_gives_the_same_bytes(scenes: Path, tmp_path: Path, font: EmojiFont) -> None:
    make_emoji_scenes(tmp_path, image_size=32, num_images=NUM_IMAGES, seed=3, font=font)
    for path in scenes.iterdir():
        assert path.read_bytes() == (tmp_path / path.name).read_bytes()


def test_more_images_begin_as_fewer_do(scenes: Path, tmp_path: Path, font: EmojiFont) -> None:
    make_emoji_scenes(tmp_path, image_size=32, num_images={"fit": 20}, seed=3, font=font)
    more, fewer = load_split(tmp_path, "fit"), load_split(scenes, "fit")
    assert more.captions[:12] == fewer.captions
    assert (more.images[:12] == fewer.images).all()


def test_splits_and_seeds_differ(scenes: Path, tmp_path: Path, font: EmojiFont) -> None:
    make_emoji_scenes(tmp_path, image_size=32, num_images={"fit": 12}, seed=4, font=font)
    starts = [load_split(scenes, split).captions[:4] for split in NUM_IMAGES]
    starts.append(load_split(tmp_path, "fit").captions[:4])
    assert len(set(starts)) == 4


def test_samples_are_as_img2dataset_writes_them(scenes: Path) -> None:
    with tarfile.open(scenes / "validation-000000.tar") as shard:
        members = {m.name: shard.extractfile(m).read() for m in shard.getmembers()}
    assert sorted(members) == [
        f"{number:09d}.{extension}"
        for number in range(5)
        for extension in ("cls", "jpg", "json", "txt")
    ]
    described = json.loads(members["000000002.json"])
    assert described["caption"] == members["000000002.txt"].decode()
    assert (described["key"], described["status"]) == ("000000002", "success")
    assert (described["width"], described["height"]) == (32, 32)
    with Image.open(io.BytesIO(members["000000002.jpg"])) as picture:
        assert (picture.format, picture.size, picture.mode) == ("JPEG", (32, 32), "RGB")


def test_a_split_carries_its_captions(scenes: Path) -> None:
    data = load_split(scenes, "validation")
    assert data.images.shape == (5, 3, 32, 32)
    assert len(data.captions) == len(data.labels) == 5
    for caption, label in zip(data.captions, data.labels.tolist(), strict=True):
        named = max(  # of the names in the caption, the first; of several there, the longest
            (entry for group in emoji_groups().values() for entry in group),
            key=lambda entry: max(
                (len(noun) - 1000 * caption.find(noun))
                if re.search(rf"\b{noun}\b", caption)
                else -(10**6)
                for noun in (entry.name, entry.plural)
            ),
        )
        assert named.group == data.class_names[label]


def test_a_finished_folder_is_kept_and_another_one_refused(scenes: Path, font: EmojiFont) -> None:
    before = {path: path.stat().st_mtime_ns for path in scenes.iterdir()}
    make_emoji_scenes(scenes, image_size=32, num_images=NUM_IMAGES, seed=3, font=font)
    assert {path: path.stat().st_mtime_ns for path in scenes.iterdir()} == before
    with pytest.raises(DataError, match=r"of 32 pixels from seed 3, not .* of 64 from seed 3"):
        make_emoji_scenes(scenes, image_size=64, num_images=NUM_IMAGES, seed=3, font=font)
    with pytest.raises(DataError, match="from seed 4"):
        make_emoji_scenes(scenes, image_size=32, num_images=NUM_IMAGES, seed=4, font=font)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 31}, r"image_size must be in \[32, 512\], got 31"),
        ({"image_size": 513}, r"image_size must be in \[32, 512\], got 513"),
        ({"num_images": {"fit": 0}}, "split 'fit' needs at least 1 image, got 0"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
    ],
)
def test_impossible_values_are_refused(options: dict, message: str, tmp_path: Path) -> None:
    settings = {"image_size": 32, "num_images": {"fit": 1}, **options}
    with pytest.raises(ValueError, match=message):
        make_emoji_scenes(tmp_path, **settings)
    assert not list(tmp_path.iterdir())


def test_a_font_that_is_not_there_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="apt install fonts-noto-color-emoji"):
        EmojiFont(tmp_path / "NotoColorEmoji.ttf")


def test_an_emoji_that_the_font_lacks_is_named(font: EmojiFont) -> None:
    with pytest.raises(DataError, match="no colour picture of letter"):
        font.draw(Emoji("\u0628", "letter", "letters", "shapes"))


@pytest.mark.usefixtures("font")
def test_the_command_writes_all_splits(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    main(["make-emoji-scenes", "--output-dir", str(tmp_path), "--num-images", "11"])
    assert "fit: 11 images" in capsys.readouterr().out
    assert len(load_split(tmp_path, "validation").captions) == 1


def test_the_command_reports_bad_values(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["make-emoji-scenes", "--output-dir", str(tmp_path), "--num-images", "-2"])
    assert stopped.value.code == 1
    assert "needs at least 1 image, got -2" in capsys.readouterr().err
