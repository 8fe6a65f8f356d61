"""The commands that make data sets: prepare a published one, or draw one."""

from pathlib import Path
from typing import Annotated, Literal

import tyro

from adanat.data import FONT_NAME, EmojiFont
from adanat.data import make_emoji_scenes as write_emoji_scenes
from adanat.prepare import Preparation, PreparedIndex, prepare_cc3m, prepare_coco, prepare_imagenet


def prepare(
    dataset: Annotated[
        Literal["imagenet", "coco", "cc3m"],
        tyro.conf.Positional,
        tyro.conf.arg(metavar="DATASET", help="imagenet, coco or cc3m."),
    ],
    preparation: Annotated[Preparation, tyro.conf.arg(name="")],
    source: Annotated[
        Path | None,
        tyro.conf.arg(help="imagenet, coco: folder of the published files."),
    ] = None,
    train: Annotated[
        tuple[str, ...],
        tyro.conf.arg(help="cc3m: img2dataset's shards to learn from: paths, {0..9}, *, http(s)."),
    ] = (),
    test: Annotated[tuple[str, ...], tyro.conf.arg(help="cc3m: the validation shards.")] = (),
    num_classes: Annotated[int, tyro.conf.arg(help="imagenet: how many classes.")] = 1000,
    allow_commands: Annotated[
        bool, tyro.conf.arg(help="cc3m: run the commands of `pipe:COMMAND` entries, in a shell.")
    ] = False,
    timeout: Annotated[
        float, tyro.conf.arg(help="cc3m: seconds without a byte until a source counts as stuck.")
    ] = 60.0,
) -> None:
    """Make a benchmark's data set ready: once, in parallel, resumable."""
    if dataset == "cc3m":
        if source is not None or not train or not test:
            raise ValueError("cc3m is prepared from --train SHARDS and --test SHARDS")
        index = prepare_cc3m(
            train, test, preparation, allow_commands=allow_commands, timeout=timeout
        )
    elif source is None:
        raise ValueError(f"{dataset} is prepared from --source FOLDER")
    elif dataset == "coco":
        index = prepare_coco(source, preparation)
    else:
        index = prepare_imagenet(source, preparation, num_classes)
    print(_counts(index, preparation.output))


def _counts(index: PreparedIndex, folder: Path) -> str:
    lines = [f"{index.dataset} in {folder}: {len(index.shards)} shards"]
    lines += [f"  {split}: {count:,} samples" for split, count in index.splits.items()]
    for title, counts in index.counts.items():
        rows = counts if isinstance(counts, dict) else {"samples": counts}
        lines += [f"  {title}, {reason}: {count:,}" for reason, count in rows.items() if count]
    return "\n".join(lines)


def make_emoji_scenes(
    output_dir: Path,
    num_images: Annotated[int, tyro.conf.arg(help="Images to train on (split `fit`).")],
    image_size: Annotated[int, tyro.conf.arg(help="Side in pixels, 32 to 512.")] = 64,
    num_validation: Annotated[int | None, tyro.conf.arg(help="Default: a tenth.")] = None,
    num_test: Annotated[int | None, tyro.conf.arg(help="Default: a tenth.")] = None,
    seed: int = 0,
    data_dir: Annotated[
        Path | None, tyro.conf.arg(help="Folder with NotoColorEmoji.ttf. Default: known places.")
    ] = None,
) -> None:
    """Make a captioned data set: emoji on coloured grounds, as img2dataset-style shards."""
    tenth = max(1, num_images // 10)
    index = write_emoji_scenes(
        output_dir,
        image_size=image_size,
        num_images={
            "fit": num_images,
            "validation": tenth if num_validation is None else num_validation,
            "test": tenth if num_test is None else num_test,
        },
        seed=seed,
        font=None if data_dir is None else EmojiFont(data_dir / FONT_NAME),
    )
    for split, shards in index.splits.items():
        print(f"{split}: {sum(shard.num_samples for shard in shards)} images in {output_dir}")
