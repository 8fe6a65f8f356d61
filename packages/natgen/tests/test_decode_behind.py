"""Pictures behind tokens: the same, in order, one batch behind."""

import pytest
import torch
from natgen import decode_behind


def picture(tokens):
    return (tokens * 3).to(torch.uint8).unflatten(1, (1, 2, -1))


def test_pictures_come_in_order_while_the_next_tokens_are_drawn():
    events = []

    def batches():
        for number in range(3):
            events.append(f"draw {number}")
            yield torch.full((2, 4), number)

    def decode(tokens):
        events.append(f"decode {int(tokens[0, 0])}")
        return picture(tokens)

    for number, images in enumerate(decode_behind(decode, batches())):
        events.append(f"use {number}")
        assert torch.equal(images, picture(torch.full((2, 4), number)))
    assert events == [
        "draw 0", "decode 0", "draw 1", "decode 1", "use 0", "draw 2", "decode 2", "use 1", "use 2",
    ]  # fmt: skip


def test_no_batches_give_no_pictures():
    assert list(decode_behind(picture, [])) == []


@pytest.mark.gpu
def test_pictures_of_a_gpu_arrive_in_pinned_memory():
    batches = [torch.arange(8).view(2, 4) + shift for shift in range(4)]
    found = list(decode_behind(picture, [tokens.cuda() for tokens in batches]))
    for images, tokens in zip(found, batches, strict=True):
        assert images.is_pinned()
        assert torch.equal(images, picture(tokens))
