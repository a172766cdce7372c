"""Which network answers: one that a job has brought along, or else the worker's own."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, lru_cache, update_wrapper
from typing import Generic, NamedTuple, ParamSpec, TypeVar

from digitq.protocol.asked import UnmetError
from digitq.protocol.asked.own_network import OwnNetwork, unpack_network
from digitq.protocol.chunk import WEIGHTS_DIGITS
from digitq.protocol.errors import BrokerError, DigitqError
from digitq.protocol.settings import NUMBER, settings
from digitq.worker.models.card import hash_card
from digitq.worker.models.second_reader import SECOND_READER, is_second_reader_used

P = ParamSpec("P")
T = TypeVar("T")
MAX_LENT = 4  # a process keeps at most so many networks that jobs have brought


class Lent(NamedTuple):
    """A network that a job has brought."""

    name: str
    fetch: Callable[[str], OwnNetwork]  # by this name


_lent: ContextVar[Lent | None] = ContextVar("lent", default=None)


@contextmanager
def use_network(model: str, name: str | None, fetch: Callable[[str], OwnNetwork]) -> Iterator[None]:
    """Within this context, the network of this name answers for the model, if there is one, in
    place of the worker's own. It is fetched unless this process has kept it."""
    is_lent = name != name_network_in_use(model)
    token = _lent.set(Lent(name, fetch) if name and is_lent else None)
    try:
        yield
    finally:
        _lent.reset(token)


def fetch_lent() -> tuple[bytes, bytes] | None:
    """The card and the weights that the job has brought; None if it has brought none. Raises
    `UnmetError` if they are not those of their name."""
    if not (lent := _lent.get()):
        return None
    try:
        return unpack_network(lent.fetch(lent.name))
    except ValueError as error:
        raise UnmetError(refuse(error)) from None


def refuse(error: Exception) -> str:
    """Why a network that a job has brought can't be used, in words."""
    return f"the network that the job has brought can't be used: {error}"


def describe_weights(model: str) -> str:
    """How results name the network that answers: by the first digits of the SHA-256 of its card,
    which has that of its weights, and `SECOND_READER` if that has read, too."""
    second = SECOND_READER if model == NUMBER and is_second_reader_used() else ""
    return name_network_in_use(model) + second


def name_network_in_use(model: str) -> str:
    """The same of the network alone."""
    lent = _lent.get()
    return lent.name if lent else describe_own(settings().weights, model)


@cache
def describe_own(folder: object, model: str) -> str:
    """The same of the worker's own network, with `DIGITQ_WEIGHTS` as its folder."""
    return hash_card(model)[:WEIGHTS_DIGITS]


class CachedByWeights(Generic[P, T]):
    """A function that loads a network. It is called once for the same arguments and the same
    weights, of which `MAX_LENT` are kept that jobs have brought."""

    def __init__(self, load: Callable[P, T]) -> None:
        def load_lent(name: str, *args: P.args, **options: P.kwargs) -> T:
            try:
                return load(*args, **options)
            except (UnmetError, BrokerError):
                raise
            except DigitqError as error:
                raise UnmetError(refuse(error)) from None

        own = cache(lambda folder, *args, **options: load(*args, **options))
        self._own: Callable[..., T] = own
        self._lent: Callable[..., T] = lru_cache(MAX_LENT)(load_lent)
        self.cache_clear = own.cache_clear
        update_wrapper(self, load)

    def __call__(self, *args: P.args, **options: P.kwargs) -> T:
        if lent := _lent.get():
            return self._lent(lent.name, *args, **options)
        return self._own(settings().weights, *args, **options)
