"""`FaultBed`: what rows work with: services, a store that may fail, the usual load, and how long a fault lasts."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import httpx
import uvloop

from app.loadgen.generator import LoadGenerator
from benchmarks.faults.secrets import Secrets
from benchmarks.faults.service import Service
from benchmarks.faults.store_server import StoreServer
from benchmarks.faults.usual_load import LoadTask, UsualLoad
from benchmarks.testbed import Testbed

CANDIDATES = 100
SHARE = 0.4
"""The usual load, as a share of what the closed loop reached."""
CONNECTIONS = 32
CLOSED_CONNECTIONS = 8
TRIAL_S, SMOKE_TRIAL_S = 1.5, 0.3
STORE_SETTINGS = {"CTR_DEADLINE_MS": "100"}
"""The deadline of the service whose store fails."""


@dataclass
class FaultBed:
    """Services are started when the first row asks for them, and shared by the rows after it."""

    testbed: Testbed
    secrets: Secrets
    seconds: float
    """How long the faults last that last for a minute in full."""
    smoke: bool
    notify: Callable[[str], None]
    _shared: dict[str, tuple[Service, StoreServer | None, contextlib.ExitStack]] = field(default_factory=dict)
    _rates: dict[tuple[str, int], float] = field(default_factory=dict)
    _loads: list[UsualLoad] = field(default_factory=list)
    _starts: int = 0

    @property
    def scale(self) -> float:
        return self.seconds / 60

    @property
    def rounds(self) -> int:
        """Rounds of a comparison."""
        return 1 if self.smoke else 3

    @property
    def round_s(self) -> float:
        """Seconds of a round, with the fault and without."""
        return 0.5 if self.smoke else max(1.0, 2.0 * min(1.0, self.scale))

    def count(self, full: int, smoke: int) -> int:
        """Return a number of repetitions."""
        return smoke if self.smoke else max(smoke, round(full * min(1.0, self.scale)))

    @contextlib.contextmanager
    def service(
        self,
        name: str,
        *,
        store: StoreServer | None = None,
        settings: Mapping[str, str] | None = None,
        options: tuple[str, ...] = (),
        program: tuple[str, ...] = (),
        model: str = "bench",
        ready: bool = True,
        both_cores: bool = False,
    ) -> Iterator[Service]:
        """Run a service for a row alone.

        Args:
            store: the feature store; that of the testbed if it is left out.
            ready: wait until it is healthy and has cached all items, not only until it answers.
        """
        chosen = {
            "CTR_API_KEYS": self.secrets.key,
            "CTR_POLL_S": "0.25",
            **({} if store is None else {"CTR_REDIS_URL": store.url}),
            **(settings or {}),
        }
        core = self.testbed.service_core | self.testbed.other_core if both_cores else None
        with self.testbed.service(
            name, model=model, core=core, options=options, settings=chosen, program=program, healthy=ready
        ) as (process, url):
            yield Service(process, url, self.testbed.folder / f"{name}.log", self.secrets)

    def usual(self) -> Service:
        """Return the service with default settings, which rows share."""
        return self._share("usual", None)[0]

    def with_store(self) -> tuple[Service, StoreServer]:
        """Return a service with a feature store of its own that rows may stop, and its deadline of 100 ms."""
        service, store = self._share("store", STORE_SETTINGS)
        assert store is not None
        return service, store

    def _share(self, name: str, settings: Mapping[str, str] | None) -> tuple[Service, StoreServer | None]:
        if name in self._shared and not _healthy(self._shared[name][0]):
            self.notify(f"the service `{name}` is no longer healthy: another one is started")
            self._shared.pop(name)[2].close()
        if name not in self._shared:
            stack = contextlib.ExitStack()
            store = stack.enter_context(self.store("store")) if settings is not None else None
            self._starts += 1  # each with a log of its own, which the secrets are looked for in
            service = stack.enter_context(self.service(f"{name}-{self._starts}", store=store, settings=settings))
            self._shared[name] = service, store, stack
        return self._shared[name][:2]

    @contextlib.contextmanager
    def store(self, name: str) -> Iterator[StoreServer]:
        """Run a feature store with the catalogue loaded."""
        folder = self.testbed.folder / name
        folder.mkdir(exist_ok=True)
        with StoreServer(folder, self.secrets.password, self.testbed.other_core) as store:
            store.load(self.testbed.catalogue)
            yield store

    def close(self) -> None:
        """Stop the shared services."""
        while self._shared:
            self._shared.popitem()[1][2].close()

    def capacity(self, service: Service, candidates: int = CANDIDATES, *, anew: bool = False) -> float:
        """Return requests a second in a closed loop, measured once. Raises SystemExit if none is answered.

        Args:
            anew: measure it again, for a row that depends on how fast the machine is just now.
        """
        key = service.url, candidates
        if anew or key not in self._rates:
            generator = LoadGenerator(service.url, self.testbed.bodies(candidates), headers=service.headers)
            seconds = SMOKE_TRIAL_S if self.smoke else TRIAL_S
            uvloop.run(generator.closed(CLOSED_CONNECTIONS, seconds / 3))
            result = uvloop.run(generator.closed(CLOSED_CONNECTIONS, seconds))
            if not result.statuses[200]:
                raise SystemExit(f"error: no request was answered: {dict(result.statuses)}")
            self._rates[key] = result.statuses[200] / result.seconds
        return self._rates[key]

    def load(
        self,
        service: Service,
        *,
        candidates: int = CANDIDATES,
        share: float = SHARE,
        connections: int = CONNECTIONS,
        store: StoreServer | None = None,
        bodies: Sequence[bytes] = (),
    ) -> UsualLoad:
        """Return a load on a service, at a share of its capacity.

        Args:
            bodies: what to send in place of the catalogue's requests; the capacity is that of the catalogue's.
        """
        pids = [store.pid] if store else [self.testbed.store.pid] if self.testbed.store else []
        load = UsualLoad(
            LoadTask(
                url=service.url,
                bodies=list(bodies) or self.testbed.bodies(candidates),
                headers=service.headers,
                rate=share * self.capacity(service, candidates),
                connections=connections,
                goes_first=not self.smoke,  # the tests beside a smoke run need their core too
                store_pids=pids,
                secrets=self.secrets.texts,
            )
        )
        self._loads.append(load)
        return load

    def ask_for_secrets(self) -> None:
        """Count what the loads saw of the secrets, and ask the routes that may tell most."""
        for load in self._loads:
            self.secrets.looked_at += len(load.timeline)
            if load.leaks:
                self.secrets.leaks.append(f"{load.leaks} answers to the usual load")
        service = self.usual()
        for path in ("/", "/health", "/metrics", "/models", "/openapi.json", "/docs", "/absent"):
            with contextlib.suppress(httpx.HTTPError):
                service.get(path)


def _healthy(service: Service) -> bool:
    return service.holds_within(lambda health: health["status"] == "ok", 15) is not None
