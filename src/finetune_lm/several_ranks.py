"""Several processes that make one run together: their messages, and how they find each other."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from finetune_lm import messages
from finetune_lm.attempts import Attempt, Attempts
from finetune_lm.common_memory import CommonMemory
from finetune_lm.ends import Ends
from finetune_lm.errors import GivenUpError
from finetune_lm.gradient_sums import GradientSums
from finetune_lm.launching import common_store, launched, place_here
from finetune_lm.out_of_memory import is_out_of_memory
from finetune_lm.randomness import RANKS, OwnRandomness, stream_seed
from finetune_lm.ranks import World, being, is_joined, world

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")

LONGEST_WAIT = timedelta(hours=2)
"""For a rank that is there and says nothing: it may be saving a model. One that ends is noticed at
once, whatever it ended by."""

_ROOM = 2**14
"""How many bytes a rank can say in one message."""


class _SeveralRanks(World):
    """Several ranks, of which this process is one.

    Args:
        store: What they all reach, to say why they end.
        rank: This one.
        size: How many there are.
    """

    def __init__(self, store: Any, rank: int, size: int) -> None:
        self.rank, self.size = rank, size
        self._ends = Ends(store, rank, size)
        self._own = OwnRandomness(0)
        self._signal: int | None = None
        self._received: int | None = None
        self._store, self._n_calls = store, 0
        self._meshes: dict[str, Any] = {}
        self._attempts = Attempts(self._ends, self.gather, self._hang_up, self._call)
        self._call()

    def _call(self) -> None:
        """Let messages come through."""
        import torch.distributed as dist

        # Split models import it, and its functions keep the group that there is at that time.
        import torch.distributed.nn.functional as with_gradients
        from torch.distributed.distributed_c10d import PrefixStore

        del with_gradients
        self._memory = CommonMemory(self.rank, self.size, self.gather)
        self._sums = GradientSums(self._memory, self.gather, self._add_up_flat)
        with self._noticing():
            # Gradients go by what is fast between their devices, all else by the CPU.
            dist.init_process_group(
                store=PrefixStore(f"group {self._n_calls}", self._store),
                rank=self.rank,
                world_size=self.size,
                timeout=LONGEST_WAIT,
            )
            self._group = dist.new_group(backend="gloo", timeout=LONGEST_WAIT)
        self._n_calls += 1

    def randomness(self) -> AbstractContextManager[object]:
        return self._own

    def seed(self, seed: int) -> None:
        self._own = OwnRandomness(stream_seed(seed, RANKS, self.rank))

    def begin(self) -> Attempt:
        return self._attempts.begin()

    def in_turns(self, do: Callable[[], T]) -> T:
        mine = place_here()
        done: list[T] = []
        for turn in range(max(self.gather(mine)) + 1):
            if turn == mine:
                done.append(do())
            self.gather(None)
        return done[0]

    def ends_more(self, error: BaseException) -> bool:
        return self._attempts.ends_more(error)

    def pass_over(self, error: GivenUpError) -> None:
        self._attempts.pass_over(error)

    def gather(self, value: T) -> list[T]:
        told = self._all_bytes(_as_bytes((self._received, value)))
        signals, values = zip(*map(pickle.loads, told), strict=True)
        if self._signal is None:
            self._signal = next((each for each in signals if each is not None), None)
        return list(values)

    def decided(self, decide: Callable[..., T], *args: Any) -> T:
        # An error on the first rank ends it, and thereby the others.
        return self.gather(decide(*args) if self.is_first else None)[0]  # type: ignore[return-value]

    def mesh(self, device_type: str) -> Any:
        from torch.distributed.device_mesh import init_device_mesh

        if device_type not in self._meshes:
            self._meshes[device_type] = init_device_mesh(device_type, (self.size,))
        return self._meshes[device_type]

    @contextmanager
    def saying_why(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if (explained := self._ends.explained(error)) is not error:
                raise explained from error
            raise

    def all_have_stopped(self) -> bool:
        return self._ends.all_have_stopped()

    def agreed(self, signal: int | None) -> int | None:
        self._received = signal
        return self._signal

    def common_memory(self, n_bytes: int) -> Tensor | None:
        return self._memory.new(n_bytes)

    def add_up(self, gradients: Iterable[Any]) -> None:
        self._sums.take(gradients)

    def _add_up_flat(self, numbers: Tensor) -> None:
        import torch.distributed as dist

        with self._noticing():
            dist.all_reduce(numbers)

    def state_dict(self) -> dict[str, Any]:
        return {"size": self.size, "randomness": self.gather(self._own.state_dict())}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._own.load_state_dict(state["randomness"][self.rank])

    def _all_bytes(self, data: bytes) -> list[bytes]:
        """What each rank has to say, in one message if that is as short as it mostly is."""
        lengths, texts = self._all_in_room(data, _ROOM)
        if max(lengths) > _ROOM:
            lengths, texts = self._all_in_room(data, max(lengths))
        return [text[:n].numpy().tobytes() for n, text in zip(lengths, texts, strict=True)]

    def _all_in_room(self, data: bytes, room: int) -> tuple[list[int], list[Tensor]]:
        import torch
        import torch.distributed as dist

        message = torch.zeros(8 + room, dtype=torch.uint8)
        message[:8] = torch.tensor([len(data)]).view(torch.uint8)
        if len(data) <= room:
            message[8 : 8 + len(data)] = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        messages = [torch.empty_like(message) for _ in range(self.size)]
        with self._noticing():
            dist.all_gather(messages, message, group=self._group)
        return [int(each[:8].view(torch.int64)) for each in messages], [m[8:] for m in messages]

    @contextmanager
    def _noticing(self) -> Iterator[None]:
        """Say why a rank is gone that does not answer any more.

        Raises:
            OtherRankError: If one is.
        """
        try:
            yield
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            raise self._ends.why() from error

    def leave(self, error: BaseException) -> None:
        """Let the other ranks know that this one ends, and why.

        An error that another rank tells the user has ``is_told`` afterwards.
        """
        self._ends.tell(error)
        self.close()
        if not self.is_first and self._ends.is_told_by_first(error):
            with suppress(AttributeError):
                error.is_told = True  # type: ignore[attr-defined]

    def _hang_up(self) -> bool:
        """The same, and whether they notice, which they do not while something has a group."""
        import weakref

        import torch.distributed as dist

        groups = [weakref.ref(group) for group in (self._group, dist.group.WORLD) if group]
        self.close()
        return all(group() is None for group in groups)

    def close(self) -> None:
        """Be gone for the others."""
        import torch.distributed as dist

        self._group = None
        self._memory.close()
        for mesh in self._meshes.values():  # which torch keeps for good
            getattr(mesh, "_pg_registry", {}).clear()
        self._meshes.clear()
        if dist.is_initialized():
            with suppress(RuntimeError):
                dist.destroy_process_group()


class _Pickler(pickle.Pickler):
    """Pickles tensors as arrays, wherever they are."""

    def reducer_override(self, value: Any) -> Any:
        import torch

        if isinstance(value, torch.Tensor):
            return torch.from_numpy, (value.detach().cpu().numpy(),)
        return NotImplemented


def _as_bytes(value: Any) -> bytes:
    file = io.BytesIO()
    _Pickler(file, protocol=5).dump(value)
    return file.getvalue()


@contextmanager
def joined() -> Iterator[World]:
    """Inside, the processes that a launcher has started for one run are one world.

    The first of them to end in any other way than the end of what is inside ends all of them.

    Raises:
        UserError: If they do not find each other.
        OtherRankError: If another one has ended.
    """
    rank, size = launched()
    if size == 1 or is_joined():
        yield world()
        return
    ranks = _SeveralRanks(common_store(size), rank, size)
    try:
        with (
            being(ranks),
            messages.silent() if rank else nullcontext(),
            ranks.saying_why(),
        ):
            yield ranks
            # Nobody is gone while another may still need it.
            ranks.gather(None)
    except BaseException as error:
        ranks.leave(error)
        raise
    finally:
        ranks.close()
