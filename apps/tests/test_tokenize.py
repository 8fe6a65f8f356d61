"""The stage that turns images into a store of codes."""

from dataclasses import replace
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
import torch
from adanat.data import ImageSet
from adanat.errors import StageError
from adanat.recipes import get_recipe
from adanat.recipes.base import TokensRecipe
from adanat.run import Run
from adanat.stages import tokenize
from torch import Tensor
from vqtok import Tokenizer, TokenStore, TokenStoreWriter

COUNTS = {"fit": 70, "validation": 30, "test": 20}


@pytest.fixture(autouse=True)
def small_splits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few random images in the place of those on disk."""

    def images(run: Run, split: str) -> ImageSet:
        generator = torch.Generator().manual_seed(COUNTS[split])
        shape, names = (COUNTS[split], 3, 8, 8), tuple("0123456789")
        pixels = torch.randint(0, 256, shape, generator=generator).to(torch.uint8)
        labels = torch.randint(0, 10, shape[:1], generator=generator)
        return ImageSet(pixels, labels, names)

    monkeypatch.setattr(Run, "images", images)


@pytest.fixture(scope="module")
def until_here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run up to its tokenizer, which is a random one."""
    folder = tmp_path_factory.mktemp("tokenize") / "run"
    run = Run(get_recipe("tiny"), folder)
    torch.manual_seed(0)
    with run.stages.tokenizer as stage:
        Tokenizer(run.recipe.tokenizer.model).save_pretrained(run.folder.tokenizer_model)
        stage.finish({})
    return folder


def make_run(until_here: Path, folder: Path, **tokens: object) -> Run:
    copytree(until_here, folder)
    return Run(replace(get_recipe("tiny"), tokens=TokensRecipe(**tokens)), folder)


def content(run: Run) -> dict[str, bytes]:
    return {
        f"{split}/{file.name}": file.read_bytes()
        for split in ("fit", "validation", "test")
        for file in sorted(run.folder.token_store(split).iterdir())
    }


@pytest.mark.parametrize("mirrored", [False, True])
def test_codes_and_conditions(until_here: Path, tmp_path: Path, mirrored: bool) -> None:
    run = make_run(until_here, tmp_path / "run", mirrored=mirrored, batch_size=40)
    tokenize(run)
    tokenizer = run.tokenizer()
    for split in ("fit", "validation", "test"):
        data, store = run.images(split), run.tokens(split)
        count = len(data.labels)
        images = data.images / 255.0
        if mirrored and split == "fit":
            images = torch.cat([images, images[:, :, :, torch.arange(7, -1, -1)]])
        codes, conditions = store.batch(range(len(store)))
        assert torch.equal(codes, tokenizer.encode(images))
        copies = len(images) // count
        assert torch.equal(conditions["labels"], data.labels.repeat(copies))
        assert torch.equal(conditions["images"], torch.arange(count).repeat(copies))
        assert conditions["mirrored"].tolist() == [i >= count for i in range(len(images))]
        assert run.stages.tokens.results()["tokens"][split] == len(images)


def test_the_error_of_reconstructions_is_recorded(until_here: Path, tmp_path: Path) -> None:
    run = make_run(until_here, tmp_path / "run", mirrored=True)
    tokenize(run)
    tokenizer, images = run.tokenizer(), run.images("fit").images / 255.0
    images = torch.cat([images, images.flip(-1)])
    expected = (tokenizer.decode(tokenizer.encode(images)) - images).abs().mean().item()
    assert run.stages.tokens.results()["l1"]["fit"] == pytest.approx(expected, rel=1e-5)


def test_an_interrupted_stage_goes_on(
    until_here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = make_run(until_here, tmp_path / "whole", mirrored=True, batch_size=16)
    tokenize(whole)
    run = make_run(until_here, tmp_path / "run", mirrored=True, batch_size=16)
    write, written = TokenStoreWriter.write, []

    def write_some(writer: TokenStoreWriter, start: int, *arguments: object) -> None:
        if len(written) == 6:
            raise KeyboardInterrupt
        written.append(start)
        write(writer, start, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(TokenStoreWriter, "write", write_some)
        with pytest.raises(KeyboardInterrupt):
            tokenize(run)
    assert not run.stages.tokens.is_done()
    tokenize(run)
    assert content(run) == content(whole)


class Lazy:
    """Pictures in the place of a tensor, counted as they are read."""

    def __init__(self, images: Tensor) -> None:
        self._images = images
        self.largest = 0

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: Tensor) -> Tensor:
        self.largest = max(self.largest, len(index))
        return self._images[index]


def test_images_may_stay_on_disk(
    until_here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    eager = make_run(until_here, tmp_path / "eager", mirrored=True, batch_size=32)
    tokenize(eager)
    run = make_run(until_here, tmp_path / "run", mirrored=True, batch_size=32)
    in_memory, seen = Run.images, []

    def lazy(self: Run, split: str) -> ImageSet:
        data = in_memory(self, split)
        seen.append(Lazy(data.images))
        return data._replace(images=seen[-1])

    monkeypatch.setattr(Run, "images", lazy)
    tokenize(run)
    assert content(run) == content(eager)
    assert max(images.largest for images in seen) == 32


@pytest.fixture
def unfinished(
    until_here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Run, Path]:
    """A run whose first store is complete, but not its stage."""
    run = make_run(until_here, tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(Tokenizer, "decode", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            tokenize(run)
    path = run.folder.token_store("fit")
    assert len(TokenStore(path)) == len(run.images("fit").labels)
    return run, path


def test_wrong_codes_are_found(unfinished: tuple[Run, Path]) -> None:
    run, path = unfinished
    codes = np.load(path / "tokens.npy")
    np.save(path / "tokens.npy", np.roll(codes, 1, axis=0))
    with pytest.raises(StageError, match=r"only \d+% of a sample of the codes in .*fit are those"):
        tokenize(run)


def test_wrong_labels_are_found(unfinished: tuple[Run, Path]) -> None:
    run, path = unfinished
    labels = np.load(path / "condition_labels.npy")
    np.save(path / "condition_labels.npy", (labels + 1) % 10)
    with pytest.raises(StageError, match=r"fit holds other labels than its images have"):
        tokenize(run)


def test_a_store_of_another_length_is_refused(unfinished: tuple[Run, Path]) -> None:
    run, path = unfinished
    count = len(run.images("fit").labels)
    other = Run(replace(run.recipe, tokens=TokensRecipe(mirrored=True)), run.output_dir)
    (run.folder.tokens / "config.json").unlink()
    with pytest.raises(StageError, match=rf"fit holds {count} items, expected {2 * count}"):
        tokenize(other)
    assert len(TokenStore(path)) == count
