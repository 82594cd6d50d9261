"""The models of one server by their names: some answer, others begin to when they are first asked."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from trainer.errors import TrainerError
from trainer.inference.serve.limits import Limits, Slots
from trainer.inference.serve.refusals import Refusal, failed
from trainer.inference.serve.service import Service, in_thread

Start = Callable[[], Awaitable[Service]]


@dataclass
class _Offer:
    """A model that can be asked; `service` is there while it answers."""

    start: Start
    service: Service | None = None
    num_requests: int = 0
    turn: int = 0  # of its last request among all


class Models:
    """Models that share one set of places for requests. With `most`, more than so many never answer at a time."""

    def __init__(self, limits: Limits, most: int | None = None) -> None:
        self.limits, self.most = limits, most
        self.places = Slots(limits)
        self._offers: dict[str, _Offer] = {}
        self._starting = asyncio.Lock()
        self._turn = 0

    @property
    def names(self) -> list[str]:
        return list(self._offers)

    @property
    def services(self) -> list[Service]:
        """Those that answer."""
        return [offer.service for offer in self._offers.values() if offer.service is not None]

    @property
    def problem(self) -> str | None:
        """Error that ended the answering of a model, or None."""
        return next((problem for service in self.services if (problem := service.engine.problem)), None)

    def offer(self, name: str, start: Start) -> None:
        """A model that answers to this name; the first of a name stays."""
        self._offers.setdefault(name, _Offer(start))

    async def start(self, name: str) -> Service:
        """The service of a model, which is started unless it answers already; whoever stops waiting stops nothing.

        Raises: TrainerError, Refusal.
        """
        offer = self._offers[name]
        if offer.service is not None:
            return offer.service
        task = asyncio.ensure_future(self._start(offer))
        task.add_done_callback(lambda done: done.cancelled() or done.exception())  # seen, also where nobody waits
        return await asyncio.shield(task)

    async def _start(self, offer: _Offer) -> Service:
        async with self._starting:
            if offer.service is None:
                await self._make_room()
                offer.service = await offer.start()
            return offer.service

    @asynccontextmanager
    async def using(self, name: str) -> AsyncIterator[Service]:
        """The service of the model with this name, which goes on answering until the block is left.

        Raises: Refusal, when there is none, or no memory for it.
        """
        if name not in self._offers:
            message = f"the model {name[:80]!r} is not served here, expected {' or '.join(map(repr, self.names))}"
            raise Refusal(404, message, "model_not_found", "model")
        offer = self._offers[name]
        self._turn += 1
        offer.turn, offer.num_requests = self._turn, offer.num_requests + 1
        try:
            try:
                service = await self.start(name)
            except TrainerError as error:
                raise failed(f"the model {name!r} cannot answer: {error}") from error
            yield service
        finally:
            offer.num_requests -= 1

    def stop(self) -> None:
        """End the threads that generate; requests in progress fail."""
        for service in self.services:
            service.stop()

    async def _make_room(self) -> None:
        """Let go of the model that was asked least recently, where as many answer as may. Raises: Refusal."""
        if self.most is None or len(self.services) < self.most:
            return
        idle = [offer for offer in self._offers.values() if offer.service is not None and not offer.num_requests]
        if not idle:
            message = f"{self.most} models are answering, which is this server's limit; try again"
            raise Refusal(429, message, "rate_limit_exceeded", kind="requests", retry_seconds=1)
        oldest = min(idle, key=lambda offer: offer.turn)
        assert oldest.service is not None
        service, oldest.service = oldest.service, None
        await in_thread(service.stop)
