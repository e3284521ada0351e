"""Make a base image from this machine's own Python, for places where no registry can be reached.

Usage: make.py IMAGE_NAME        (Linux with Docker; standard library only)

The image is a small root file system: the interpreter with its standard library, pip, the shared
libraries these need, a shell, and the certificates this machine trusts. It goes as one tar stream
into `docker import`.
"""

# ruff: noqa: S603, S606, S607  # it runs this machine's own tools, and no one else gives it arguments

from __future__ import annotations

import importlib.util
import io
import os
import re
import shutil
import site
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import time
import zipfile
from pathlib import Path

from bytecode import LEFT_OUT, compiled

VERSION = f"python{sys.version_info.major}.{sys.version_info.minor}"
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"  # where the image keeps them
# Distributions patch a Python that lives in /usr to know that place; any other one can be moved.
IMAGE_PREFIX = "/usr" if sys.base_prefix == "/usr" else "/usr/local"
LEFT_OUT_HERE = LEFT_OUT | {"site-packages", "dist-packages"}
LEFT_OUT_FILES = re.compile(r"_tkinter\.|EXTERNALLY-MANAGED$|\.pyc$|\.a$")
WITHOUT_BUSYBOX = (
    "sh",
    "cat",
    "ls",
    "mkdir",
    "rm",
    "cp",
    "mv",
    "chmod",
    "chown",
    "sleep",
    "env",
    "grep",
    "sed",
    "id",
    "tar",
)


def fail(message: str) -> None:
    sys.exit(f"base image: {message}")


class Image:
    """The tar stream, and which shared libraries the files in it will need."""

    def __init__(self, stream: io.RawIOBase) -> None:
        self.tar = tarfile.open(  # noqa: SIM115  # closed by close()
            fileobj=stream, mode="w|", format=tarfile.GNU_FORMAT
        )
        self.names: set[str] = set()
        self.binaries: list[str] = []
        self.scratch = Path(tempfile.mkdtemp())

    def _entry(self, name: str, kind: bytes, mode: int, mtime: float | None = None) -> tarfile.TarInfo | None:
        name = name.strip("/")
        if name in self.names:
            return None
        self.names.add(name)
        entry = tarfile.TarInfo(name)
        entry.type, entry.mode, entry.mtime = kind, mode, int(time.time() if mtime is None else mtime)
        return entry

    def folder(self, name: str, mode: int = 0o755) -> None:
        if entry := self._entry(name, tarfile.DIRTYPE, mode):
            self.tar.addfile(entry)

    def link(self, name: str, target: str) -> None:
        if entry := self._entry(name, tarfile.SYMTYPE, 0o777):
            entry.linkname = target
            self.tar.addfile(entry)

    def bytes(self, name: str, content: bytes, mode: int = 0o644, mtime: float | None = None) -> None:
        if entry := self._entry(name, tarfile.REGTYPE, mode, mtime):
            entry.size = len(content)
            self.tar.addfile(entry, io.BytesIO(content))

    def file(self, name: str, source: str, mode: int = 0o644) -> None:
        """A file of this machine. Its time is kept: a .pyc is only used if its source's time fits."""
        content = Path(source).read_bytes()
        if content.startswith(b"\x7fELF"):
            self.binaries.append(source)
        self.bytes(name, content, mode, os.stat(source).st_mtime)

    def package(self, name: str, source: str) -> None:
        """A folder of Python modules, each with its compiled form, which makes imports much faster."""
        for folder, folders, files in os.walk(source):
            folders[:] = sorted(f for f in folders if f not in LEFT_OUT_HERE and not f.startswith("config-"))
            inside = os.path.join(name, os.path.relpath(folder, source))
            for file in sorted(files):
                path = os.path.join(folder, file)
                inner = os.path.normpath(os.path.join(inside, file))
                if not LEFT_OUT_FILES.search(file) and os.path.isfile(path):
                    self.file(inner, path)
                if file.endswith(".py") and (code := compiled(path, shown_as=inner)):
                    self.bytes(importlib.util.cache_from_source(inner), code)

    def close(self) -> None:
        self.tar.close()
        shutil.rmtree(self.scratch)


def add_python(image: Image) -> None:
    bin_folder = f"{IMAGE_PREFIX}/bin"
    image.file(f"{bin_folder}/{VERSION}", os.path.realpath(sys._base_executable), 0o755)
    image.link(f"{bin_folder}/python3", VERSION)
    image.link(f"{bin_folder}/python", VERSION)
    image.package(f"{IMAGE_PREFIX}/lib/{VERSION}", sysconfig.get_path("stdlib"))

    modules = site.getsitepackages()[0].replace(sys.base_prefix, IMAGE_PREFIX, 1)
    found = importlib.util.find_spec("pip")
    if found and found.origin:
        folder = os.path.dirname(found.origin)
        image.package(f"{modules}/pip", folder)
        for info in Path(folder).parent.glob("pip-*.dist-info"):
            image.package(f"{modules}/{info.name}", str(info))
    else:
        with zipfile.ZipFile(find_pip_wheel()) as wheel:
            source = str(image.scratch / "wheel")
            wheel.extractall(source)  # noqa: S202  # Python's own
        image.package(modules, source)
    script = f"#!{bin_folder}/python3\nfrom pip._internal.cli.main import main\nraise SystemExit(main())\n"
    image.bytes("/usr/local/bin/pip", script.encode(), 0o755)
    image.link("/usr/local/bin/pip3", "pip")


def find_pip_wheel() -> Path:
    bundled = Path(sysconfig.get_path("stdlib")) / "ensurepip" / "_bundled"
    wheels = [*bundled.glob("pip-*.whl"), *Path("/usr/share/python-wheels").glob("pip-*.whl")]
    if not wheels:
        fail(f"{sys.executable} has no pip. On Debian and Ubuntu: apt-get install python3-venv")
    return wheels[0]


def add_tools(image: Image) -> None:
    busybox = shutil.which("busybox")
    if busybox:
        image.file("/usr/bin/busybox", busybox, 0o755)
        names = subprocess.run([busybox, "--list"], check=True, capture_output=True, text=True).stdout.split()
        for name in names:
            image.link(f"/usr/bin/{name}", "busybox")
        return
    for name in WITHOUT_BUSYBOX:
        if tool := shutil.which(name):
            image.file(f"/usr/bin/{name}", os.path.realpath(tool), 0o755)


def add_libraries(image: Image) -> None:
    """What the binaries link to, and what wheels and name look-ups load later on."""
    wanted: dict[str, str] = {}
    loader = ""
    listing = subprocess.run(["ldd", *image.binaries], check=False, capture_output=True, text=True).stdout
    for name, path in re.findall(r"^\s*(\S+) => (/\S+)", listing, re.MULTILINE):
        wanted[os.path.basename(name)] = path
    if found := re.search(r"^\s*(/\S*/ld-\S+)", listing, re.MULTILINE):
        loader = found.group(1)
    cache = subprocess.run(["/sbin/ldconfig", "-p"], check=False, capture_output=True, text=True).stdout
    for name in ("libstdc++.so.6", "libgcc_s.so.1", "libnss_files.so.2", "libnss_dns.so.2", "libresolv.so.2",
                 "librt.so.1", "libpthread.so.0", "libdl.so.2", "libutil.so.1"):  # fmt: skip
        # An engine's machine may hold libraries of several architectures: take those next to libc.
        paths = re.findall(rf"^\s*{re.escape(name)} .*=> (/\S+)", cache, re.MULTILINE)
        near = [p for p in paths if os.path.dirname(p).rsplit("/", 1)[-1] == libc_folder(wanted)] or paths[:1]
        if near:
            wanted.setdefault(name, near[0])
    # One folder that the loader searches without being told.
    folder = "/usr/lib/" + libc_folder(wanted) if "-linux-" in libc_folder(wanted) else "/usr/lib64"
    for name, path in sorted(wanted.items()):
        image.file(f"{folder}/{name}", os.path.realpath(path), 0o755)
    if loader:
        image.file("/usr" + loader.removeprefix("/usr"), os.path.realpath(loader), 0o755)


def libc_folder(wanted: dict[str, str]) -> str:
    return os.path.basename(os.path.dirname(wanted.get("libc.so.6", "/usr/lib64/")))


def add_system(image: Image) -> None:
    for folder in ("bin", "sbin", "lib", "lib64"):
        image.folder(f"/usr/{folder}")
        image.link(f"/{folder}", f"usr/{folder}")
    for folder in ("/etc", "/proc", "/sys", "/dev", "/run", "/var", "/home", "/usr/local/bin"):
        image.folder(folder)
    image.folder("/root", 0o700)
    image.folder("/tmp", 0o1777)  # noqa: S108  # a folder inside the image
    image.folder("/var/tmp", 0o1777)  # noqa: S108  # a folder of the image
    users = b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n"
    image.bytes("/etc/passwd", users)
    image.bytes("/etc/group", b"root:x:0:\nnogroup:x:65534:\n")
    image.bytes("/etc/nsswitch.conf", b"passwd: files\ngroup: files\nhosts: files dns\n")
    # The machine's own list, so that what it trusts (a company's proxy, say) is trusted in builds too.
    usual = (CERTIFICATES, "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")
    for place in (os.environ.get("SSL_CERT_FILE"), *usual):
        if place and os.path.isfile(place):
            image.bytes(CERTIFICATES, Path(place).read_bytes())
            return
    fail("no list of certificates found. Install one (Debian, Ubuntu: apt-get install ca-certificates).")


def main() -> None:
    if sys.prefix != sys.base_prefix:  # in a virtual environment: use the Python that it was made from
        os.execv(sys._base_executable, [sys._base_executable, "-Es", __file__, *sys.argv[1:]])
    if len(sys.argv) != 2:
        fail("usage: make.py IMAGE_NAME")
    if sys.platform != "linux":
        fail("can only be made on Linux. Run 'docker pull python:3.12-slim' where a registry can be reached.")
    if sys.version_info < (3, 11):  # noqa: UP036  # this script may be started with any Python
        fail(f"{sys.executable} is too old; 3.11 or newer is needed: set PYTHON=/path/to/python3")

    settings = {
        "PATH": "/usr/local/bin:/usr/local/sbin:/usr/bin:/usr/sbin:/bin:/sbin",
        "LANG": "C.UTF-8",
        "SSL_CERT_FILE": CERTIFICATES,
        "PIP_CERT": CERTIFICATES,
    }
    changes = [f"--change=ENV {key}={value}" for key, value in settings.items()]
    changes.append('--change=CMD ["python3"]')
    command = ["docker", "import", *changes, "-", sys.argv[1]]
    docker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    try:
        image = Image(docker.stdin)
        add_system(image)
        add_python(image)
        add_tools(image)
        add_libraries(image)
        image.close()
        docker.stdin.close()
    except BrokenPipeError:
        pass  # docker has said why
    except BaseException:
        docker.kill()  # else it would make an image of what it has so far
        raise
    if docker.wait() != 0:
        fail("'docker import' failed, see above. Does an engine answer? scripts/engine.sh makes sure.")


main()
