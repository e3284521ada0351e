"""Certificates as people have them: PEM files made by openssl."""

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NAMES = "DNS:localhost,DNS:*.localhost,IP:127.0.0.1"


@dataclass(frozen=True, slots=True)
class Files:
    """A certificate that signs itself, and its key."""

    certificate: Path
    key: Path

    @property
    def settings(self) -> dict[str, Any]:
        return {"tls_certificate": str(self.certificate), "tls_key": str(self.key)}

    def sign_anew(self, days: int) -> None:
        """Let it be good for so many days from now; below 0 it has ended."""
        openssl("x509", "-in", self.certificate, "-signkey", self.key, "-days", str(days), "-out", self.certificate)

    @property
    def environment(self) -> dict[str, str]:
        """The same, as a process is told."""
        return {name.upper(): str(value) for name, value in self.settings.items()}


def make(folder: Path, name: str = "own", *, names: str = NAMES) -> Files:
    """Make one that is good for a month."""
    files = Files(folder / f"{name}.pem", folder / f"{name}.key")
    openssl(
        "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc", "-subj", f"/CN={name}",
        "-addext", f"subjectAltName={names}", "-days", "30", "-out", files.certificate, "-keyout", files.key,
    )  # fmt: skip
    return files


def openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)
