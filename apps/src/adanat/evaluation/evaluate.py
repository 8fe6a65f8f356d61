"""Judges any source of images: collects features, scores them, measures what they cost."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from natgen import NATConfig

from adanat.errors import DataError
from adanat.evaluation.chunks import Collection, Times, collect
from adanat.evaluation.cost import measure_cost
from adanat.evaluation.extractors import AdmExtractor, CleanExtractor, Extractor, Lite2Extractor
from adanat.evaluation.figures import (
    METRICS,
    Figure,
    MetricName,
    Sample,
    extractor_of,
    key_of,
    score,
)
from adanat.evaluation.generators import (
    Conditions,
    GeneratedSource,
    Models,
    balanced,
    captioned,
    is_run_folder,
    random,
)
from adanat.evaluation.opening import open_images
from adanat.evaluation.options import SourceEvaluation
from adanat.evaluation.processes import Processes, choose_device, join_processes
from adanat.evaluation.references import RealImages
from adanat.evaluation.results import EvaluationResult
from adanat.evaluation.sheets import write_sheets
from adanat.evaluation.sinks import NpzSink, PngSink
from adanat.evaluation.sources import FirstOf, Source
from adanat.text import load_text_encoder

DEFAULT_SAMPLES = 10_000


def evaluate_source(options: SourceEvaluation) -> EvaluationResult | None:
    """Judge a source and write `options.output`; of several processes the first returns it.

    Features are kept in the cache, so that an interrupted evaluation goes on where it stopped and
    a further figure costs no second pass.

    Raises:
        AdanatError: Something that the options name is missing, damaged or does not fit.
        ValueError: Options that contradict one another.
    """
    device = choose_device()
    sources = open_judged(options, device)
    extractors = {name: load_extractor(name, options, device) for name in _names(options)}
    real = None
    if options.reference is not None:
        real = RealImages(
            options.reference, count=options.num_reference, foreign=options.statistics_protocol
        )
    with join_processes() as processes:
        judged = _collect_all(options, sources, extractors, real, processes)
        return _score_all(options, judged) if processes.is_first else None


def open_judged(options: SourceEvaluation, device: torch.device) -> dict[int, Source]:
    """The judged images by generation seed; images that are given stand under seed 0.

    Raises:
        AdanatError: There are no images or models, or fewer images than asked for.
        ValueError: Generation seeds for images that are given.
    """
    path = Path(options.source)
    if not is_run_folder(path):
        if len(options.seeds) > 1:
            raise ValueError(
                f"seeds are {options.seeds}, but the images of {path} are given: seeds are for run "
                "folders"
            )
        images = open_images(options.source)
        return {0: FirstOf(images, options.num_samples) if options.num_samples else images}
    models = Models.load(path, policy=options.policy, num_steps=options.num_steps, device=device)
    return {
        seed: GeneratedSource(
            models,
            _conditions(options, models.nat.config, seed, device),
            num_samples=options.num_samples or DEFAULT_SAMPLES,
            seed=seed,
            batch_size=options.batch_size,
        )
        for seed in options.seeds
    }


def _conditions(
    options: SourceEvaluation, config: NATConfig, seed: int, device: torch.device
) -> Conditions:
    """What the samples are asked to show, as the options and the model have it."""
    if (options.labels == "captions") != (config.num_classes is None):
        raise DataError(
            f"labels are {options.labels!r}, but the model in {options.source} knows "
            f"{'captions' if config.num_classes is None else f'{config.num_classes} classes'}"
        )
    if config.num_classes is None:
        if options.reference is None:
            raise DataError("captions are those of the reference: name it by --reference")
        real = open_images(options.reference)
        items = real.items(0, options.num_samples or DEFAULT_SAMPLES)
        captions = [item.caption for item in items if item.caption is not None]
        encoder = load_text_encoder(options.text_encoder, config.num_context_tokens, device)
        return captioned(captions, encoder)
    if options.labels == "random":
        return random(config.num_classes, seed=seed)
    return balanced(config.num_classes)


def load_extractor(name: str, options: SourceEvaluation, device: torch.device) -> Extractor:
    """A network by the name that figures ask for.

    Raises:
        StorageError: Its weights cannot be had.
    """
    if name == "lite2":
        return Lite2Extractor(input_size=options.feature_size, device=device)
    if name == "clean":
        return CleanExtractor.load(options.weights, device=device)
    if name == "adm":
        return AdmExtractor.load(options.weights, device=device)
    if options.clip_dir is None:
        raise ValueError("clip-score needs a CLIP model: name its folder by --clip-dir")
    from adanat.evaluation.clip import ClipExtractor  # loads transformers, which takes seconds

    return ClipExtractor(options.clip_dir, device=device)


def _names(options: SourceEvaluation) -> list[str]:
    """Of the extractors behind the figures asked for, each once."""
    return list(dict.fromkeys(extractor_of(name, options.manifold) for name in options.metrics))


def _compared(options: SourceEvaluation) -> list[str]:
    """Those of them whose features are compared with real ones."""
    names = [name for name in options.metrics if METRICS[name].needs_reference]
    return list(dict.fromkeys(extractor_of(name, options.manifold) for name in names))


@dataclass(frozen=True, kw_only=True)
class _Judged:
    """All that is collected, by generation seed."""

    sources: Mapping[int, Source]
    collections: Mapping[int, Collection]
    extractors: Mapping[str, Extractor]
    real: RealImages | None
    real_collection: Collection


def _collect_all(
    options: SourceEvaluation,
    sources: Mapping[int, Source],
    extractors: Mapping[str, Extractor],
    real: RealImages | None,
    processes: Processes,
) -> _Judged:
    def run(source: Source, networks: Sequence[Extractor], seed: int | None = None) -> Collection:
        pngs, archive = (None, None) if seed is None else _sinks(options, source, seed)
        found = collect(
            source,
            networks,
            cache=options.cache,
            processes=processes,
            batch_size=options.batch_size,
            sinks=[sink for sink in (pngs, archive) if sink is not None],
        )
        if archive is not None and processes.is_first:
            archive.finish()
        return found

    real_collection = Collection()
    if real is not None:
        networks = [extractors[name] for name in _compared(options)]
        needed = [network for network in networks if real.needs_images(network.identity)]
        if real.images is not None:
            real_collection = run(real.images, needed)
    return _Judged(
        sources=sources,
        collections={
            seed: run(source, list(extractors.values()), seed) for seed, source in sources.items()
        },
        extractors=extractors,
        real=real,
        real_collection=real_collection,
    )


def _sinks(
    options: SourceEvaluation, source: Source, seed: int
) -> tuple[PngSink | None, NpzSink | None]:
    """Where the images themselves go; with several seeds the seed is part of the name."""
    several = len(options.seeds) > 1
    pngs, archive = options.save_images, options.save_npz
    if several and pngs is not None:
        pngs = pngs / f"seed-{seed}"
    if several and archive is not None:
        archive = archive.with_name(f"{archive.stem}-seed-{seed}.npz")
    return (
        PngSink(pngs, source.key) if pngs is not None else None,
        NpzSink(archive, source.key) if archive is not None else None,
    )


def _score_all(options: SourceEvaluation, judged: _Judged) -> EvaluationResult:
    """Write the results, and the pictures if asked for."""
    times = Times()
    for collection in judged.collections.values():
        times.add(collection.times)
    first = next(iter(judged.sources.values()))
    generated = first if isinstance(first, GeneratedSource) else None
    cost = measure_cost(generated, times) if generated else None
    began = time.perf_counter()
    samples = {
        name: _samples(extractor, options, judged) for name, extractor in judged.extractors.items()
    }
    result = EvaluationResult(
        source=first.description,
        reference=judged.real.description if judged.real else None,
        num_samples=len(first),
        label_plan=generated.label_plan if generated else None,
        policy=options.policy if generated else None,
        num_steps=cost.num_steps if cost else None,
        seeds=options.seeds if generated else (),
        figures=tuple(_figure(name, options, judged, samples) for name in options.metrics),
        cost=cost.to_json() if cost else None,
        seconds={
            "reference": judged.real_collection.times.total,
            "images": times.reading,
            "features": times.using,
            "scoring": time.perf_counter() - began,
        },
    )
    result.save(options.output)
    if options.pictures is not None:
        sample = next(iter(next(iter(samples.values())).values()))
        real = judged.real.images if judged.real else None
        write_sheets(options.pictures, first, sample, real)
    return result


def _samples(extractor: Extractor, options: SourceEvaluation, judged: _Judged) -> dict[int, Sample]:
    """One extractor's view of both sides, by generation seed."""
    identity = extractor.identity
    side = None
    if judged.real is not None and identity.name in _compared(options):
        side = judged.real.side(identity, judged.real_collection.stores.get(identity.name))
    return {
        seed: Sample(
            store=collection.stores[identity.name], reference=side, seed=options.scoring_seed
        )
        for seed, collection in judged.collections.items()
    }


def _figure(
    name: MetricName,
    options: SourceEvaluation,
    judged: _Judged,
    samples: Mapping[str, Mapping[int, Sample]],
) -> Figure:
    extractor = extractor_of(name, options.manifold)
    return score(
        name,
        samples[extractor],
        key=key_of(name, options.manifold),
        extractor=judged.extractors[extractor].identity.to_json(),
    )
