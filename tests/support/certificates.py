"""Certificates as people have them: PEM files made by openssl."""

import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
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

    def begin_in(self, seconds: float) -> None:
        """Let it not be valid yet."""
        folder = self.key.parent
        request, config, begin = folder / "request", folder / "ca.cnf", datetime.now(UTC) + timedelta(seconds=seconds)
        for name, content in (("issued", ""), ("serial", "01\n")):
            (folder / name).write_text(content)
        config.write_text(
            f"[ca]\ndefault_ca = own\n[own]\ndatabase = {folder}/issued\nserial = {folder}/serial\n"
            f"new_certs_dir = {folder}\ndefault_md = sha256\npolicy = any\n[any]\ncommonName = supplied\n"
        )
        openssl("x509", "-x509toreq", "-in", self.certificate, "-signkey", self.key, "-out", request)
        openssl(
            "ca", "-batch", "-notext", "-selfsign", "-config", config, "-in", request, "-keyfile", self.key,
            "-startdate", begin.strftime("%Y%m%d%H%M%SZ"), "-days", "30", "-out", self.certificate,
        )  # fmt: skip

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
