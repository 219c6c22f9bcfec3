"""Copies of all that a batch may change, each made in a few pieces, and the way back, bit for bit.

To queue a copy of some 500 tensors takes the host 0.2 to 1 ms, to replay a CUDA graph of it 5 µs
(docs/gpu-results.md). So on a GPU what is the same in every step is recorded once. `torch.cat` gives there a
seventh of the bandwidth that `torch._foreach_copy_` does, to places of 16 bytes; on a CPU it is the faster.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import nn

from nantui.worker import distributed, ultralytics_api
from nantui.worker.ultralytics_types import Trainer

Pieces: TypeAlias = list[torch.Tensor]
Room: TypeAlias = list[torch.UntypedStorage]
MOST_RECORDED = 8  # places that the allocator may give in turn to one training's copies
ALIGNED = 16  # bytes that a GPU's kernel copies at a time


class Joined:
    """Tensors that are copied together: those of one device and type in one piece."""

    def __init__(self, tensors: Iterable[torch.Tensor]) -> None:
        """Raises RuntimeError for a tensor with holes."""
        groups: dict[tuple[torch.device, torch.dtype], list[torch.Tensor]] = {}
        for tensor in tensors:
            groups.setdefault((tensor.device, tensor.dtype), []).append(_flat(tensor))
        self._groups = list(groups.values())
        self._lengths = [sum(map(_room_of, flats)) for flats in self._groups]
        self.device = next((device for device, _ in groups if device.type == "cuda"), None)

    def room(self) -> Room:
        """Return memory for the pieces; nobody fills it, as `torch.empty` does under `deterministic`.

        Raises RuntimeError where there is none.
        """
        return [
            torch.UntypedStorage(length * flats[0].itemsize, device=flats[0].device)
            for flats, length in zip(self._groups, self._lengths, strict=True)
        ]

    def copies(self) -> Pieces:
        """Return the pieces in memory of their own, queued on the device, without a host read."""
        pieces = [
            flats[0].new_zeros(length) if flats[0].is_cuda else torch.cat(flats)
            for flats, length in zip(self._groups, self._lengths, strict=True)
        ]
        self.copy_into(pieces, on_gpu=True)
        return pieces

    def pieces(self, room: Room) -> Pieces:
        """Return the pieces that lie in `room`; what is between their parts is nobody's."""
        firsts = [flats[0] for flats in self._groups]
        return [first.new_empty(0).set_(one) for first, one in zip(firsts, room, strict=True)]

    def copy_into(self, pieces: Pieces, on_gpu: bool | None = None) -> None:
        """Queue the copying, without a host read; where it is said, only of what is on a GPU, or is not."""
        for flats, piece in zip(self._groups, pieces, strict=True):
            if on_gpu is not None and piece.is_cuda != on_gpu:
                continue
            if piece.is_cuda:
                torch._foreach_copy_(_parts(piece, flats), flats)
            else:
                torch.cat(flats, out=piece)

    def are_in(self, pieces: Pieces) -> bool:
        """Tell, with host reads, whether what is on a GPU lies in pieces bit for bit."""
        return all(
            torch.equal(part.view(torch.uint8), flat.view(torch.uint8))
            for flats, piece in zip(self._groups, pieces, strict=True)
            if piece.is_cuda
            for part, flat in zip(_parts(piece, flats), flats, strict=True)
        )

    def put_back(self, pieces: Pieces) -> None:
        """Fill the tensors from pieces; what a validation has made can be written to in its mode only."""
        with torch.inference_mode():
            for flats, piece in zip(self._groups, pieces, strict=True):
                torch._foreach_copy_(flats, _parts(piece, flats))


def _room_of(flat: torch.Tensor) -> int:
    """Return how many elements of a piece a tensor takes."""
    together = ALIGNED // flat.itemsize if flat.is_cuda else 1
    return -(-len(flat) // together) * together


def _parts(piece: torch.Tensor, flats: Pieces) -> Pieces:
    """Return each tensor's part of the piece."""
    parts = zip(piece.split([_room_of(flat) for flat in flats]), flats, strict=True)
    return [part if len(part) == len(flat) else part[: len(flat)] for part, flat in parts]


def _flat(tensor: torch.Tensor) -> torch.Tensor:
    """Return a view of all elements in the order of memory (channels-last or not)."""
    strides = tensor.stride()
    order = sorted(range(tensor.dim()), key=lambda dimension: strides[dimension], reverse=True)
    return tensor.detach().permute(order).view(-1)


def recorded(
    work: Callable[[], None], device: torch.device, right: Callable[[], bool]
) -> Callable[[], None] | None:
    """Do `work`, which must touch the same memory each time, and return what does it again as one launch.

    None where it cannot be recorded, or does not do it `right` when replayed: then it is to be done as ever.
    With several ranks PyTorch 2.6 waits for ever to begin (`capture_begin`): under TORCH_NCCL_BLOCKING_WAIT
    it counts collectives that have begun, but not those that are done.
    `torch.cuda.graph` is not used, as it empties the allocator's cache (`torch/cuda/graphs.py`); what other
    threads do meanwhile is no part of the recording.
    """
    if distributed.together() and distributed.BLOCKING:
        return None
    graph, aside = torch.cuda.CUDAGraph(), torch.cuda.Stream(device)
    aside.wait_stream(torch.cuda.current_stream(device))
    try:
        with torch.cuda.stream(aside):
            graph.capture_begin(capture_error_mode="thread_local")
            try:
                work()
            finally:
                graph.capture_end()
        torch.cuda.current_stream(device).wait_stream(aside)
        graph.replay()
        return graph.replay if right() else None
    except (RuntimeError, TypeError):  # a driver, or a PyTorch before 2.1, that cannot
        return None


def largest_magnitude(tensors: Iterable[torch.Tensor]) -> torch.Tensor | None:
    """Return the largest magnitude in `tensors`, NaN or Inf when one is there, None without a number."""
    plain = [one if one.dtype is torch.float32 else one.float() for one in tensors if one.numel()]
    peaks = [torch.linalg.vector_norm(one, ord=float("inf")) for one in plain]
    return None if not peaks else peaks[0] if len(peaks) == 1 else torch.stack(peaks).amax()


@dataclass(frozen=True, eq=False)
class Snapshot:
    """Statistics as they were, and their largest magnitude (0-dim), None for a model that has none."""

    pieces: Pieces
    peak: torch.Tensor | None


class BatchNormStatistics:
    """The running statistics of a model's normalization layers, which a bad batch's forward pass pollutes.

    One copy a step gives both what must be checked and what must be put back.
    """

    def __init__(self, model: nn.Module, every_step: bool = False) -> None:
        """`every_step` is for whoever asks often: two places are kept, and filled in turn."""
        self._model, self._every_step = model, every_step
        self._pointers: list[int] = []
        self.refresh()
        self.remember(self._fresh())

    def refresh(self) -> None:
        """Find the buffers again: something may have replaced their storage (`model.to`, `half`)."""
        buffers = ultralytics_api.normalization_buffers(self._model)
        pointers = [buffer.data_ptr() for buffer in buffers]
        if pointers != self._pointers:
            self._buffers, self._pointers = Joined(buffers), pointers
            self._places: list[tuple[Snapshot, Callable[[], None]]] = []

    def snapshot(self) -> Snapshot:
        """Copy the statistics as they are now; a copy stays until the next but one, or while remembered."""
        if not (self._every_step and self._good.pieces and self._good.pieces[0].is_cuda):
            return self._fresh()
        if not self._places:
            self._places = [self._place(), self._place()]
        snapshot, fill = next(place for place in self._places if place[0] is not self._good)
        fill()
        return snapshot

    def _fresh(self) -> Snapshot:
        pieces = self._buffers.copies()
        return Snapshot(pieces, largest_magnitude(filter(torch.is_floating_point, pieces)))

    def _place(self) -> tuple[Snapshot, Callable[[], None]]:
        """Return a snapshot that is not filled yet, and what fills it."""
        place = self._fresh()
        for piece in place.pieces:
            piece.zero_()

        def fill() -> None:
            self._buffers.copy_into(place.pieces)
            peak = largest_magnitude(filter(torch.is_floating_point, place.pieces))
            if place.peak is not None and peak is not None:
                place.peak.copy_(peak)

        device = place.pieces[0].device
        return place, recorded(fill, device, lambda: self._buffers.are_in(place.pieces)) or fill

    def remember(self, snapshot: Snapshot) -> None:
        """Make `snapshot` the state that `restore` goes back to."""
        self._good = snapshot

    def restore(self) -> None:
        """Put the remembered statistics back into the model."""
        self._buffers.put_back(self._good.pieces)


class StepBackup:
    """Copies of all that one trainer's optimizer step and the EMA's update change.

    PyTorch's and Ultralytics' optimizers change in place what they know of a parameter, the EMA its average.
    So where all of it lies is asked in the first two steps of an epoch, where there is more of it, and before
    it is put back; a validation of the user's own may move the EMA. The copies' own memory is taken for a
    step only, or it would raise the peak. Gradients are evidence and not copied: a step lets go of them, and
    adds momentum to finite ones at most (PyTorch's SGD on a GPU, without weight decay).
    """

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._room: Room = []
        self._gradients: list[torch.Tensor | None] = []
        self._states: list[tuple[dict[str, object], dict[str, object]]] = []
        self._state: dict[object, object] = {}
        self._pointers: list[int] = []
        self._recorded: dict[tuple[int, ...], Callable[[], None] | None] = {}
        self.look_again()

    def look_again(self) -> None:
        """Ask again where everything lies, in the next steps."""
        self._looks = 2

    def copy(self) -> None:
        """Copy everything. Raises RuntimeError (torch.cuda.OutOfMemoryError is one) where it cannot be."""
        state = self._trainer.optimizer.state
        grown = state is not self._state or len(state) != len(self._states)
        if self._looks or grown or self._average_at() != self._average:
            self._look()
        room = self._joined.room()
        self._fill(room)
        self._room = room
        self._updates = self._trainer.ema.updates if self._trainer.ema else 0
        self._gradients = [weight.grad for weight in self._weights()]

    def _average_at(self) -> int:
        average = self._trainer.ema.ema.parameters() if self._trainer.ema else iter(())
        return next((first.data_ptr() for first in average), 0)

    def _look(self) -> None:
        self._state, self._average = self._trainer.optimizer.state, self._average_at()
        self._states = [(state, dict(state)) for state in self._trainer.optimizer.state.values()]
        tensors = self._tensors()
        pointers = [tensor.data_ptr() for tensor in tensors]
        self._looks = max(self._looks - 1, 0) if pointers == self._pointers else 1
        if pointers != self._pointers:
            self._joined, self._pointers = Joined(tensors), pointers
            self._recorded.clear()

    def _tensors(self) -> Pieces:
        """Return the weights, their average, and where it is now what the optimizer knew when looked at."""
        average = self._trainer.ema.ema.state_dict().values() if self._trainer.ema else ()
        averages = filter(torch.is_floating_point, average)
        known = [state.get(name, value) for state, kept in self._states for name, value in kept.items()]
        tensors = [value for value in known if isinstance(value, torch.Tensor)]
        return [*self._weights(), *averages, *tensors]

    def _weights(self) -> Pieces:
        return [weight for group in self._trainer.optimizer.param_groups for weight in group["params"]]

    def _fill(self, room: Room) -> None:
        """Copy into `room`: places that the allocator has given before are filled in one launch."""
        joined, places = self._joined, tuple(one.data_ptr() for one in room if one.is_cuda)
        new = places not in self._recorded and len(self._recorded) < MOST_RECORDED
        if joined.device is not None and new and not self._looks:
            pieces = joined.pieces(room)
            self._recorded[places] = recorded(
                lambda: joined.copy_into(pieces, on_gpu=True), joined.device, lambda: joined.are_in(pieces)
            )
        replay = self._recorded.get(places)
        if replay:
            replay()
        if not replay or len(places) < len(room):
            joined.copy_into(joined.pieces(room), on_gpu=False if replay else None)

    def restore(self) -> None:
        """Put everything back as it was at `copy`; without one there is nothing to do.

        Raises RuntimeError where something has put other tensors in the place of the copied ones since.
        """
        if not self._room:
            return
        if [tensor.data_ptr() for tensor in self._tensors()] != self._pointers:
            raise RuntimeError("weights were exchanged during the epoch: a bad step cannot be taken back")
        self._joined.put_back(self._joined.pieces(self._room))
        for weight, gradient in zip(self._weights(), self._gradients, strict=True):
            weight.grad = gradient
        if self._trainer.ema:
            self._trainer.ema.updates = self._updates
        for state, kept in self._states:
            state.clear()
            state.update(kept)
        every = self._trainer.optimizer.state
        for parameter in list(every)[len(self._states) :]:  # a dict keeps its order: these are new
            del every[parameter]
        self.discard()

    def discard(self) -> None:
        """Let the copies and the gradients go: the step was good."""
        self._room, self._gradients = [], []
