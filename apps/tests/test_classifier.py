"""The classifier of the data set itself."""

import pytest
import torch
from adanat.metrics import (
    Classifier,
    ClassifierConfig,
    ClassifierTrainingConfig,
    accuracy,
    extract_features,
    train_classifier,
)
from sklearn.datasets import load_digits

CONFIG = ClassifierConfig(num_classes=10, channels=(8, 16, 32))


@pytest.fixture(scope="module")
def digits():
    data = load_digits()
    images = torch.from_numpy(data.images * 255 / 16).to(torch.uint8)
    return images[:, None].repeat(1, 3, 1, 1), torch.from_numpy(data.target).long()


def test_it_learns_digits(digits):
    images, labels = digits
    training = ClassifierTrainingConfig(num_steps=150, batch_size=64, learning_rate=1e-2)
    losses = []
    model = train_classifier(
        images[:1400],
        labels[:1400],
        CONFIG,
        training,
        on_step=lambda _, loss: losses.append(loss),
    )
    assert len(losses) == 150
    assert not model.training
    assert accuracy(model, images[1400:], labels[1400:]) > 0.85
    assert extract_features(images[:7], model.features).shape == (7, 32)


def test_equal_arguments_give_equal_weights_whatever_the_global_generator(digits):
    images, labels = digits
    training = ClassifierTrainingConfig(num_steps=3, batch_size=16, seed=5)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = train_classifier(images[:40], labels[:40], CONFIG, training)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(2)
    second = train_classifier(images[:40], labels[:40], CONFIG, training)
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name]), name


def test_save_and_load(tmp_path):
    torch.manual_seed(0)
    model = Classifier(CONFIG).eval()
    model.save_pretrained(tmp_path)
    assert {"config.json", "model.safetensors"} <= {path.name for path in tmp_path.iterdir()}
    loaded = Classifier.from_pretrained(tmp_path)
    images = torch.rand(2, 3, 30, 30)
    assert loaded.config == CONFIG
    assert torch.equal(model(images), loaded.eval()(images))


def test_bad_data_and_settings_are_refused(digits):
    images, labels = digits
    training = ClassifierTrainingConfig(num_steps=1)
    with pytest.raises(ValueError, match="0 to 9 is allowed"):
        train_classifier(images[:4], torch.tensor([0, 1, 2, 10]), CONFIG, training)
    with pytest.raises(ValueError, match=r"\(3,\)"):
        train_classifier(images[:4], labels[:3], CONFIG, training)
    with pytest.raises(ValueError, match="uint8"):
        accuracy(Classifier(CONFIG), images[:4].float(), labels[:4])
    with pytest.raises(ValueError, match="at least 8"):
        Classifier(CONFIG)(torch.rand(1, 3, 4, 4))
    with pytest.raises(ValueError, match="num_classes is 1"):
        ClassifierConfig(num_classes=1)
    with pytest.raises(ValueError, match="num_steps is 0"):
        ClassifierTrainingConfig(num_steps=0)
