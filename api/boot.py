"""The start of the server: it listens at once, and is ready when database, collection and models are."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import structlog
from litestar import Litestar

from api.access import Access
from api.ingest.jobs import Jobs
from api.ingest.sample import load_sample
from api.ingest.writer import writer
from api.settings import Settings
from api.storage.keys import Keys
from api.system import System, plugin_modules, running, warm_all
from pipeline.live import Stop
from pipeline.loopwatch import LoopWatch

log = structlog.get_logger()


class Boot:
    """Brings the system up beside the listening server; ``reason`` says what it still waits for."""

    def __init__(
        self, settings: Settings, failed: Callable[[Exception], object], *, keys_required: bool = False
    ) -> None:
        self.settings = settings
        self.access = Access(settings.api_keys, required=keys_required)
        self.system: System | None = None
        self.jobs: Jobs | None = None
        self.ready = False
        self.reason = "the database is starting"
        self._failed = failed
        self._leave = asyncio.Event()
        self._begun = time.monotonic()
        self._prepared = False

    @asynccontextmanager
    async def lifespan(self, _app: Litestar) -> AsyncGenerator[None]:
        """Keep the system up for as long as the server listens."""
        task = asyncio.create_task(self._run(), name="boot")
        try:
            yield
        finally:
            self.ready = False
            self._leave.set()
            if not self._prepared:
                task.cancel()
            await asyncio.wait({task})

    def say_goodbye(self) -> None:
        """End every run and job with ``SERVER_RESTART``, so that no reader holds up the server's end."""
        self.ready, self.reason = False, "the server is stopping"
        if self.system is not None:
            self.system.runner.stop_all(Stop.SHUTDOWN)
        if self.jobs is not None:
            self.jobs.stop_all()

    async def _run(self) -> None:
        try:
            async with running(self.settings) as system:
                await self.access.begin(Keys(system.engine).digests)
                self.system, self.jobs = system, Jobs(system)
                try:
                    await self._prepare(system)
                    with LoopWatch(plugin_modules(self.settings), system.metrics.loop_lag.observe):
                        await self._leave.wait()
                finally:
                    await self.jobs.close()
                    await self.access.end()
        except Exception as problem:  # noqa: BLE001  # whatever stops the start is told by whoever started us
            self.reason = "the start failed"
            self._failed(problem)
        finally:
            self.system = self.jobs = None

    async def _prepare(self, system: System) -> None:
        self.reason = "models are being loaded"
        await warm_all(system)
        self.reason = "the sample collection is being loaded"
        await load_sample(system)
        self.reason = "the vectors are being indexed"
        async with writer(system.engine) as store:
            await store.index.build()
        # Collections would go through every object of every library, a third of a second with LiteLLM loaded.
        gc.collect()
        gc.freeze()
        self._prepared = self.ready = True
        log.info("server.ready", seconds=round(time.monotonic() - self._begun, 2))
