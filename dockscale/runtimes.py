"""The images that programs run on: known by what they are made of, and made where they are missing."""

import asyncio
import hashlib
from collections import defaultdict
from pathlib import Path

from dockscale.core.catalog import Image
from dockscale.core.manifest import Tell
from dockscale.engine import Engine, EngineError, NotFound

RUNTIMES = ("javascript", "python", "pages")
MADE_ON = {"pages": "javascript"}
"""A runtime that is made on top of another one; all else are on the base image."""
_HERE = Path(__file__).parent
_PACKED = _HERE / "recipes"
_ROOT = _PACKED if _PACKED.exists() else _HERE.parent
"""Where recipes are: an installed package has them inside, as setup.py says; else they are in the repository."""
_CLIENT = "dockscale/hub/assets/hypha-rpc-websocket.mjs"
_SHARED = (
    "constraints.txt",
    "images/base/bytecode.py",
    "images/runtime-python/requirements.txt",
    "images/runtime-python/install",
)


class Runtimes:
    """Finds them on one engine. `base_image` has Python; `pip_index_url` is the package index, unless pip's own is."""

    def __init__(self, engine: Engine, base_image: str, pip_index_url: str) -> None:
        self._engine = engine
        self._base_image = base_image
        self.build_args = {"PIP_INDEX_URL": pip_index_url} if pip_index_url else {}
        """What steps that install packages need to know."""
        self._making: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    def name_of(self, runtime: str) -> str:
        """The name of a runtime's image, which another recipe or another base would give another one."""
        digest = hashlib.sha256(self._base_of(runtime).encode())
        for path, content in sorted(_recipe(runtime).items()):
            digest.update(f"\0{path}\0{len(content)}\0".encode() + content)
        return f"dockscale-runtime-{runtime}:{digest.hexdigest()[:12]}"

    def _base_of(self, runtime: str) -> str:
        return self.name_of(MADE_ON[runtime]) if runtime in MADE_ON else self._base_image

    async def image(self, runtime: str, tell: Tell = lambda *_: None) -> Image:
        """Return a runtime's image. To make it takes half a minute.

        Raises:
            EngineError: it could not be made.
        """
        name = self.name_of(runtime)
        async with self._making[runtime]:
            try:
                return await self._engine.find_image(name)
            except NotFound:
                pass
            await self._fetch_base(runtime, tell)
            tell("info", f"making the runtime {runtime}, which is done once")
            args = {"BASE_IMAGE": self._base_of(runtime), **self.build_args}
            files = _recipe(runtime)
            return await self._engine.make(files[_dockerfile(runtime)].decode(), files, name=name, labels={}, args=args)

    async def _fetch_base(self, runtime: str, tell: Tell) -> None:
        if runtime in MADE_ON:
            await self.image(MADE_ON[runtime], tell)
            return
        try:
            await self._engine.find_image(self._base_image)
        except NotFound:
            tell("info", f"pulling the image {self._base_image}")
            try:
                await self._engine.pull(self._base_image)
            except EngineError as error:
                raise EngineError(
                    f"the base image {self._base_image} cannot be pulled: set DOCKSCALE_BASE_IMAGE to one with Python "
                    f"that is on this engine ({error})"
                ) from error


def _dockerfile(runtime: str) -> str:
    return f"images/runtime-{runtime}/Dockerfile"


def _recipe(runtime: str) -> dict[str, bytes]:
    """The files that a runtime is made of, by their paths in the repository."""
    folder = _ROOT / f"images/runtime-{runtime}"
    own = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    files = {str(path.relative_to(_ROOT)): path.read_bytes() for path in own}
    shared = {path: (_ROOT / path).read_bytes() for path in _SHARED}
    return {_CLIENT: (_HERE.parent / _CLIENT).read_bytes(), **shared, **files}
