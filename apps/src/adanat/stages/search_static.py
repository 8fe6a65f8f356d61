"""Stage `search-static`: the best schedule for all images, found without gradients."""

from collections.abc import Callable

from natgen import StaticSchedule
from policyrl import decoding_spec
from torch import Tensor

from adanat.checkpoints import atomic_write_json, read_json
from adanat.judge import LITE2, Judge
from adanat.metrics import frechet_score
from adanat.run import Run
from adanat.schedule_points import tuned_point
from adanat.seeding import derive_seed
from adanat.static_search import StaticSearch, StaticSearchConfig


def search_static(run: Run) -> None:
    """Search around the tuned schedule, in the numbers that the policy learns.

    Every score is written down as soon as it is measured; an interrupted search replays them and
    goes on as if never stopped.
    """
    stage = run.stages.static_search
    if stage.is_done():
        return
    recipe = run.recipe.static_search
    prior = tuned_point(run).schedule().values
    with stage:
        search = StaticSearch(
            decoding_spec(prior, learned=run.recipe.policy.learned),
            StaticSearchConfig(
                image_budget=recipe.image_budget or run.recipe.images_per_policy,
                images_per_score=recipe.images_per_score,
                sigma=recipe.sigma,
                seed=derive_seed(run.recipe.seed, "static search candidates") % 2**32,
            ),
        )
        path = stage.folder / "measured.json"
        if path.is_file():
            search.load_state_dict(read_json(path))
        run.engine.require_equal(len(search.state_dict()["scores"]), f"scores in {path}")

        def write_down() -> None:
            if run.engine.is_main:
                atomic_write_json(path, search.state_dict())

        best = search.run(_objective(run), after_score=write_down)
        scores = search.state_dict()["scores"]
        stage.finish(
            {
                "values": best.values.tolist(),
                "lite2_fd": best.score,
                "lite2_fd_of_tuned": scores[0],
                "num_scores": len(scores),
                "num_images": search.num_images,
            }
        )


def search_static_if_included(run: Run) -> None:
    """`search_static` where it is part of the run."""
    if run.recipe.static_search.included:
        search_static(run)


def _objective(run: Run) -> Callable[[Tensor], float]:
    """Frechet distance of a schedule's samples to validation images; the same noise for all."""
    judge = Judge(run)
    reference = judge.references("validation")[LITE2]

    def distance(values: Tensor) -> float:
        sampled = judge.sample(
            StaticSchedule(values),
            seed=derive_seed(run.recipe.seed, "static search"),
            num_samples=run.recipe.static_search.images_per_score,
            description="static search",
        )
        score = frechet_score(sampled.features[LITE2], reference)
        return run.engine.mean({"lite2_fd": score})["lite2_fd"]  # to the last bit, on all

    return distance
