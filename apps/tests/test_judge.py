"""The run's own judge: whose features are taken from the disk."""

import numpy as np
import pytest
from adanat.judge import Judge
from adanat.recipes import get_recipe
from adanat.run import Run
from adanat.stages import prepare_data


@pytest.fixture
def run(tmp_path):
    run = Run(get_recipe("tiny"), tmp_path)
    prepare_data(run)
    return run


def test_features_of_a_network_that_was_trained_again_are_not_taken_from_the_disk(run):
    def reference(scale):
        calls = []

        def pooled(images):
            calls.append(len(images))
            return scale * images.mean(dim=(2, 3))

        return Judge(run, {"classifier": pooled}).references("test")["classifier"], sum(calls)

    first, count = reference(1.0)
    again, for_the_key = reference(1.0)
    np.testing.assert_array_equal(again.features, first.features)
    assert for_the_key == 1 < count
    np.testing.assert_allclose(reference(2.0)[0].features, 2 * first.features, rtol=1e-5)
