"""Certificates of a run, kept in its folder beside what else was measured of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ohmloop.certify._certify import StatementName, certify_chips, certify_run
from ohmloop.certify._deterministic import BoxCertificate
from ohmloop.certify._divergence import KLCertificate
from ohmloop.certify._drift import DriftCertificate
from ohmloop.certify._faults import FaultCertificate, PublishedCertificate
from ohmloop.certify._law import Ablation, Calibrated, Gain
from ohmloop.certify._percentile import PercentileCertificate
from ohmloop.certify._record import Certificate
from ohmloop.certify._yield import QuantileCertificate, TailCertificate, YieldCertificate
from ohmloop.crossbar import Hardware
from ohmloop.errors import CertifyError
from ohmloop.nn import Deployment, hardware_of
from ohmloop.progress import Progress, silent
from ohmloop.train import KeptCertificate, environment, load_run, read_run
from ohmloop.train._record import add_certificates, digest_of, file_hash

_KINDS: dict[str, type[Certificate]] = {
    "box": BoxCertificate,
    "drift": DriftCertificate,
    "faults": FaultCertificate,
    "kl": KLCertificate,
    "percentile": PercentileCertificate,
    "published": PublishedCertificate,
    "quantile": QuantileCertificate,
    "tail": TailCertificate,
    "yield": YieldCertificate,
}
_ASKED = {"quantile": "yield", "tail": "yield"}


def read_certificate(record: dict[str, Any]) -> Certificate:
    """Return the certificate that `Certificate.to_dict` wrote.

    Raises:
        CertifyError: If it is of no known kind, or damaged.
    """
    kind = _KINDS.get(str(record.get("kind")))
    if kind is None:
        raise CertifyError(
            f"no kind of certificate {record.get('kind')!r}; known are {', '.join(sorted(_KINDS))}. It was "
            "written by another version of ohmloop: certify again."
        )
    try:
        return kind.model_validate(record)
    except ValueError as error:
        raise CertifyError(f"a damaged {record['kind']} certificate: {error}") from error


def certify_folder(
    folder: str | Path,
    hardware: Hardware | None = None,
    *,
    statements: Sequence[StatementName] | None = None,
    calibrated: Calibrated | None = None,
    gain: Gain | None = None,
    ablation: Ablation | None = None,
    deployment: Deployment | None = None,
    n_devices: int = 1000,
    alpha: float = 0.05,
    seed: int = 0,
    test_limit: int | None = None,
    progress: Progress = silent,
) -> tuple[Certificate, ...]:
    """Certify a finished run on the test data of its task, and keep the certificates in its folder.

    ``RUN/certificates.json`` holds them (`ohmloop.train.read_kept_certificates`).

    Args:
        folder: Of the run.
        hardware: What devices are drawn from; the run's own by default.
        statements: As for `certify_run`.
        calibrated: As for `Law.of`, as are the next two.
        gain: As for `Law.of`.
        ablation: As for `Law.of`.
        deployment: What each device gets beside its weights; by default the one that the run was trained for.
        n_devices: As for `certify`, as are the next two.
        alpha: Chance that a certificate is false, at most.
        seed: Of the virtual devices.
        test_limit: Use only that many test samples.
        progress: Told as devices are done.

    Raises:
        CertifyError: As `certify_run` does.
        TrainError: If the folder holds no finished run, or cannot be written.
    """
    path = Path(folder)
    weights = file_hash(path / "weights.pt")
    run = load_run(path)
    hardware = hardware or hardware_of(run.model)
    deployed = deployment or Deployment.parse(run.config.get("deployment", "none"))
    made = certify_run(
        run,
        hardware,
        statements=statements,
        calibrated=calibrated,
        gain=gain,
        ablation=ablation,
        deployment=deployed,
        n_devices=n_devices,
        alpha=alpha,
        seed=seed,
        test_limit=test_limit,
        masks=_masks(path),
        progress=progress,
    )
    settings = {
        "calibrated": calibrated,
        "gain": None if gain is None else gain.model_dump(mode="json"),
        "ablation": None if ablation is None else ablation.model_dump(mode="json"),
        "deployment": str(deployed),
        "n_devices": n_devices,
        "alpha": alpha,
        "seed": seed,
        "test_limit": test_limit,
    }
    _keep(path, made, hardware.device.name, hardware.model_dump(mode="json"), settings, weights)
    return made


def certify_chips_folder(
    chips: str | Path, folder: str | Path, *, alpha: float = 0.05
) -> tuple[Certificate, ...]:
    """Certify real chips that a run was put on, as `certify_chips` does, and keep it in the run's folder."""
    path, table = Path(folder), Path(chips)
    weights = file_hash(path / "weights.pt")
    made = certify_chips(table, load_run(path), alpha=alpha)
    settings = {"chips": table.name, "sha256": file_hash(table), "alpha": alpha}
    _keep(path, made, f"as in {table.name}", None, settings, weights)
    return made


def _keep(
    folder: Path,
    made: Iterable[Certificate],
    device: str,
    hardware: dict[str, Any] | None,
    settings: dict[str, Any],
    weights: str,
) -> None:
    versions = environment()
    kept = []
    for certificate in made:
        asked = _ASKED.get(certificate.kind, certificate.kind)
        question = {"asked": asked, "device": device, "hardware": hardware, **settings}
        kept.append(
            KeptCertificate(
                question=digest_of(question),
                asked=asked,
                device=device,
                hardware=hardware,
                settings=settings,
                weights_sha256=weights,
                versions=versions,
                record=certificate.to_dict(),
            )
        )
    add_certificates(folder, tuple(kept))


def _masks(folder: Path) -> list[tuple[float, float]]:
    """Return (p0, p_half) of the multinomial noise that the run ended with, by layer."""
    noise = read_run(folder).result.get("noise", {})
    return [(float(a), float(b)) for a, b in noise.get("masks", [])]
