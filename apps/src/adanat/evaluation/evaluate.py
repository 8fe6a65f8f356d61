"""Judges any source of images: collects features, scores them, measures what they cost."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from adanat.evaluation.chunks import Collection, FeatureStore, Times, collect
from adanat.evaluation.cost import CostPerImage, measure_cost, resident_memory_gb
from adanat.evaluation.extractors import AdmExtractor, CleanExtractor, Extractor, Lite2Extractor
from adanat.evaluation.figures import METRICS, MetricName, Sample, extractor_of, key_of
from adanat.evaluation.generators import GeneratedSource
from adanat.evaluation.judged import open_judged
from adanat.evaluation.options import SourceEvaluation
from adanat.evaluation.processes import Processes, choose_device, join_processes
from adanat.evaluation.reconstruction import ReconstructedSource
from adanat.evaluation.references import RealImages
from adanat.evaluation.results import EvaluationResult
from adanat.evaluation.scoring import Figure, score
from adanat.evaluation.sheets import write_sheets
from adanat.evaluation.sinks import NpzSink, PngSink
from adanat.evaluation.sources import Source
from adanat.metrics import KernelSubsets


def evaluate_source(options: SourceEvaluation) -> EvaluationResult | None:
    """Judge a source and write `options.output`; of several processes the first returns it.

    Features are kept in the cache, so that an interrupted evaluation goes on where it stopped and
    a further figure costs no second pass.

    Raises:
        AdanatError: Something that the options name is missing, damaged or does not fit.
        ValueError: Options that contradict one another.
    """
    began = time.perf_counter()
    device = choose_device()
    sources = open_judged(options, device)
    extractors = {name: load_extractor(name, options, device) for name in _names(options)}
    reference = options.reference or _originals(sources)
    real = None
    if reference is not None:
        real = RealImages(
            reference, count=options.num_reference, foreign=options.statistics_protocol
        )
    with join_processes() as processes:
        judged = _collect_all(options, sources, extractors, real, processes)
        return _score_all(options, judged, began) if processes.is_first else None


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
    if name == "pixels":
        from adanat.evaluation.pixels import PixelExtractor  # loads torchmetrics

        return PixelExtractor(device=device)
    if options.clip_dir is None:
        raise ValueError("clip-score needs a CLIP model: name its folder by --clip-dir")
    from adanat.evaluation.clip import ClipExtractor  # loads transformers, which takes seconds

    return ClipExtractor(options.clip_dir, device=device)


def _originals(sources: Mapping[int, Source]) -> Source | None:
    """The images behind reconstructions."""
    first = next(iter(sources.values()))
    return first.originals if isinstance(first, ReconstructedSource) else None


def _names(options: SourceEvaluation) -> list[str]:
    """Of the extractors behind the figures asked for, each once."""
    return list(dict.fromkeys(extractor_of(name, options.manifold) for name in options.metrics))


def _compared(options: SourceEvaluation) -> dict[str, bool]:
    """Those of them with a real side, and whether it is compared image by image."""
    found: dict[str, bool] = {}
    for name in options.metrics:
        if (compares := METRICS[name].compares) is not None:
            extractor = extractor_of(name, options.manifold)
            found[extractor] = found.get(extractor, False) or compares == "features"
    return found


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
        needed = [
            extractors[name]
            for name, of_images in _compared(options).items()
            if real.needs_features(extractors[name].identity, of_images=of_images)
        ]
        if real.images is not None and needed:
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


def _score_all(options: SourceEvaluation, judged: _Judged, began: float) -> EvaluationResult:
    """Write the results, and the pictures if asked for; `began` is when all this did."""
    times = Times()
    for collection in judged.collections.values():
        times.add(collection.times)
    first = next(iter(judged.sources.values()))
    generated = first if isinstance(first, GeneratedSource) else None
    collected = time.perf_counter()
    cost = measure_cost(generated, times) if generated else None
    counted = time.perf_counter()
    measuring = counted - collected  # a batch drawn twice
    samples = {
        name: _samples(extractor, options, judged) for name, extractor in judged.extractors.items()
    }
    figures = tuple(_figure(name, options, judged, samples) for name in options.metrics)
    scored = time.perf_counter()
    collections = (judged.real_collection, *judged.collections.values())
    own = sum(collection.own.total for collection in collections)
    result = EvaluationResult(
        source=first.description,
        reference=judged.real.description if judged.real else None,
        reference_sha256=judged.real.key if judged.real else None,
        num_samples=len(first),
        label_plan=generated.label_plan if generated else None,
        policy=options.policy if generated else None,
        num_steps=cost.num_steps if cost else None,
        seeds=options.seeds if generated else (),
        figures=figures,
        cost=cost.to_json() if cost else None,
        seconds={
            **_by_part(times, judged.real_collection.times, cost, measuring),
            "scores": scored - counted,
            "rest": collected - began - own,
        },
        peak_memory_gb=resident_memory_gb(),
    )
    result.save(options.output)
    if options.pictures is not None:
        _write_pictures(options.pictures, first, samples, judged.real)
    return result


def _by_part(
    times: Times, real: Times, cost: CostPerImage | None, measuring: float
) -> dict[str, float]:
    """Seconds of all images; generation is divided as one batch was measured to be."""
    found = {"features": times.features + real.features, "saving": times.saving + real.saving}
    if cost is None:
        return {"reading": times.reading + real.reading, **found}
    shares = {
        "transformer": cost.transformer_time_share,
        "policy": cost.policy_time_share,
        "decoder": cost.decoder_time_share,
    }
    shares["drawing"] = 1 - sum(shares.values())
    seconds = times.reading + measuring
    generation = {name: share * seconds for name, share in shares.items()}
    return {**generation, "reading": real.reading, **found}


def _write_pictures(
    folder: Path,
    images: Source,
    samples: Mapping[str, Mapping[int, Sample]],
    real: RealImages | None,
) -> None:
    """In the features of the first extractor that saw both sides, under the first seed."""
    views = [next(iter(by_seed.values())) for by_seed in samples.values()]
    both = [view for view in views if view.reference is not None and view.reference.store]
    write_sheets(folder, images, both[0] if both else None, real.images if real else None)


def _samples(extractor: Extractor, options: SourceEvaluation, judged: _Judged) -> dict[int, Sample]:
    """One extractor's view of both sides, by generation seed."""
    identity = extractor.identity
    side = None
    if judged.real is not None and identity.name in _compared(options):
        store = judged.real_collection.stores.get(identity.name)
        side = judged.real.side(identity, store, _subsets(identity.name, options, judged, store))
    return {
        seed: Sample(
            store=collection.stores[identity.name], reference=side, seed=options.scoring_seed
        )
        for seed, collection in judged.collections.items()
    }


def _subsets(
    extractor: str, options: SourceEvaluation, judged: _Judged, real: FeatureStore | None
) -> KernelSubsets | None:
    """KID's, where precision or recall have the products of all pairs of these features."""
    asked = {name for name in options.metrics if extractor_of(name, options.manifold) == extractor}
    if real is None or not (asked & {"kid", "lite2-kid"} and asked & {"precision", "recall"}):
        return None
    num_samples = len(next(iter(judged.sources.values())))
    return KernelSubsets.draw(num_samples, real.num_images, seed=options.scoring_seed)


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
