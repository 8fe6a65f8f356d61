"""Pictures one batch behind the tokens: while the GPU decodes them, it draws the next tokens."""

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor


def decode_behind(
    decode: Callable[[Tensor], Tensor], batches: Iterable[Tensor]
) -> Iterator[Tensor]:
    """Decode batches of tokens, each while the next one is being drawn.

    On a GPU the pictures are decoded in a stream of their own and copied asynchronously into pinned
    memory of the host, which waits for one batch only when the next one's tokens are under way.
    Elsewhere batches are decoded as they come, one ahead of what is asked for.

    Args:
        decode: tokens (B, L) to pictures on their device, of any shape and type.
        batches: token ids; the next one is asked for after the one before has begun to be decoded,
            and its memory must not be written again (as `StaticDecoder` guarantees).

    Yields:
        The pictures of each batch, on the host.
    """
    before: _Decoding | None = None
    stream: torch.cuda.Stream | None = None
    for tokens in batches:
        if stream is None and tokens.device.type == "cuda":
            stream = torch.cuda.Stream(tokens.device)
        begun = _Decoding(decode, tokens, stream)
        if before is not None:
            yield before.images()
        before = begun
    if before is not None:
        yield before.images()


class _Decoding:
    """One batch on its way to the host; without a stream it is there at once."""

    def __init__(
        self, decode: Callable[[Tensor], Tensor], tokens: Tensor, stream: torch.cuda.Stream | None
    ) -> None:
        self._done: torch.cuda.Event | None = None
        if stream is None:
            self._images = decode(tokens).cpu()
            return
        stream.wait_stream(torch.cuda.current_stream(stream.device))
        with torch.cuda.stream(stream):
            images = decode(tokens)
            self._images = torch.empty(images.shape, dtype=images.dtype, pin_memory=True)
            self._images.copy_(images, non_blocking=True)
            self._done = stream.record_event()
        tokens.record_stream(stream)  # their memory is not handed out before they are read

    def images(self) -> Tensor:
        """Wait for the copy."""
        if self._done is not None:
            self._done.synchronize()
        return self._images
