"""All statements about one network from one set of draws; and the same for a finished run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from ohmloop.certify._bounds import devices_needed
from ohmloop.certify._chips import read_scores, read_votes
from ohmloop.certify._deterministic import box_certificate
from ohmloop.certify._divergence import kl_certificate
from ohmloop.certify._drift import drift_certificate
from ohmloop.certify._faults import PublishedCertificate, fault_certificate, published_theorem
from ohmloop.certify._law import Ablation, Calibrated, Gain, Law
from ohmloop.certify._percentile import RHO, percentile_certificate
from ohmloop.certify._record import Certificate
from ohmloop.certify._votes import ClassRule, Draws, Votes, poll
from ohmloop.certify._yield import (
    KEEPS,
    quantile_certificate,
    score_certificate,
    tail_certificate,
    yield_certificate,
)
from ohmloop.crossbar import Hardware
from ohmloop.errors import CertifyError
from ohmloop.nn import Deployment, analog_parameters, hardware_of, predict
from ohmloop.progress import Progress, silent
from ohmloop.tasks import Split
from ohmloop.train import Run, unlabelled_inputs
from ohmloop.train._setting import OBJECTIVE_SEED

StatementName = Literal["yield", "drift", "percentile", "box", "faults", "kl", "published"]
_NAMES: tuple[StatementName, ...] = (
    "yield",
    "drift",
    "percentile",
    "box",
    "faults",
    "kl",
    "published",
)
DEFAULT: tuple[StatementName, ...] = ("yield", "percentile", "drift")
_LAW_ONLY = frozenset({"percentile", "drift", "kl"})  # what shifts all devices of a law on weights
FLEET_SHARES = (0.95, 0.99)
_SUBSET_SEED = 0
_SEARCH_DEVICES = 1024
"""Devices that a search's objective draws, at most; searches draw 10 to 30."""


def list_statements() -> tuple[StatementName, ...]:
    """Return the names of the statements that `certify` makes."""
    return _NAMES


def statements_on(
    hardware: Hardware, wanted: Sequence[StatementName] = DEFAULT
) -> tuple[StatementName, ...]:
    """Return those of the statements that can be made on this hardware.

    How far all devices may shift is known for the law on weights alone: on an array "percentile", "drift" and
    "kl" are left out, unless nothing else is wanted (`certify` then says why they cannot be made).
    """
    left = tuple(name for name in wanted if name not in _LAW_ONLY)
    return left if hardware.array is not None and left else tuple(wanted)


def certify(
    model: nn.Module,
    data: tuple[Tensor, Tensor | None],
    law: Law | Hardware | None = None,
    *,
    statements: Sequence[StatementName] = DEFAULT,
    n_devices: int = 1000,
    alpha: float = 0.05,
    seed: int = 0,
    deployment: Deployment | None = None,
    unlabelled: Tensor | None = None,
    used: Sequence[Draws] = (),
    progress: Progress = silent,
) -> tuple[Certificate, ...]:
    """Return certificates of a network on devices of a law.

    Each holds with confidence 1 - alpha by itself; k of them hold together with confidence 1 - k alpha.

    Args:
        model: An analog model in eval mode; outputs ``B x classes``.
        data: Inputs ``n x ...`` and labels ``n``; None for labels leaves out what accuracies need, and states
            agreement with the digital network instead.
        law: What devices are drawn from; by default the model's own hardware.
        statements: Which; "faults" needs a law with an ablation.
        n_devices: Virtual devices behind the statements about random devices.
        alpha: Chance that a certificate is false, at most.
        seed: Of the virtual devices, >= 0.
        deployment: What each device gets beside its weights.
        unlabelled: Inputs ``k x ...`` for deployments that show devices some.
        used: Fleets that tuning or a choice has looked at.
        progress: Told as devices are done.

    Raises:
        CertifyError: If a statement cannot be made; the text says what it takes.
    """
    names = _checked(statements)
    if law is None:
        law = hardware_of(model)
    votes: Votes | None = None
    if set(names) - {"box", "published"}:
        votes = poll(
            model,
            data,
            law,
            n_devices=n_devices,
            seed=seed,
            deployment=deployment,
            unlabelled=unlabelled,
            used=used,
            progress=progress,
        )
    rule: ClassRule = "digital" if data[1] is None else "label"
    out: list[Certificate] = []
    for name in names:
        if name == "box":
            _check_plain(deployment)
            centre = law.table if isinstance(law, Law) else law
            plain = None if centre.array is not None else centre
            out.append(box_certificate(model, data, hardware=plain, method=_bounds_for(model)))
        elif name == "published":
            out.append(published(model))
        else:
            assert votes is not None
            out.extend(_MAKE[name](votes, alpha, rule))
    return tuple(out)


def _yields(votes: Votes, alpha: float, rule: ClassRule) -> list[Certificate]:
    out: list[Certificate] = [yield_certificate(votes, alpha=alpha)]
    shares = [s for s in FLEET_SHARES if devices_needed(s, alpha) <= votes.n_devices]
    # With too few devices for any, the first says how many it takes.
    for share in shares or FLEET_SHARES[:1]:
        out.append(quantile_certificate(votes, share=share, alpha=alpha, rule=rule))
    out.append(tail_certificate(votes, alpha=alpha, rule=rule))
    return out


_MAKE: dict[str, Callable[[Votes, float, ClassRule], list[Certificate]]] = {
    "yield": _yields,
    "drift": lambda votes, alpha, rule: [drift_certificate(votes, alpha=alpha)],
    "percentile": lambda votes, alpha, rule: [
        percentile_certificate(votes, shares=_reachable(votes, alpha), alpha=alpha, rule=rule)
    ],
    "faults": lambda votes, alpha, rule: [fault_certificate(votes, alpha=alpha)],
    "kl": lambda votes, alpha, rule: [kl_certificate(votes, alpha=alpha)],
}


def _reachable(votes: Votes, alpha: float) -> tuple[float, ...]:
    """Return the shares of devices for which these votes are enough, the majority at least."""
    each = alpha / (len(KEEPS) * len(RHO))
    return tuple(s for s in KEEPS if devices_needed(s, each) <= votes.n_devices) or KEEPS[:1]


def _checked(statements: Sequence[StatementName]) -> tuple[StatementName, ...]:
    unknown = [name for name in statements if name not in _NAMES]
    if unknown or not statements:
        raise CertifyError(
            f"no statement {', '.join(unknown) or '(none)'}; expected some of {', '.join(_NAMES)}."
        )
    return tuple(dict.fromkeys(statements))


def _check_plain(deployment: Deployment | None) -> None:
    if deployment is not None and deployment != Deployment(samples=deployment.samples):
        raise CertifyError(
            f'the box is about the network alone, and the deployment "{deployment}" adds to it what depends on '
            'the device. Ask for the box without a deployment, or for "yield" with it.'
        )


def published(model: nn.Module, masks: Sequence[tuple[float, float]] = ()) -> PublishedCertificate:
    """Return the published theorem for a network, in its most favourable case f = 1.

    Args:
        model: An analog model.
        masks: (p0, p_half) of the multinomial noise by layer, as the run was trained; without, p1 = 1/2 and
            p2 = 0.
    """
    n = sum(p.numel() for p in analog_parameters(model).values())
    p1 = max((p0 for p0, _ in masks), default=0.0)
    p2 = min((half for _, half in masks), default=0.0)
    usable = 0 < p1 < 1 - p2
    found = published_theorem(1.0, p1 if usable else 0.5, p2 if usable else 0.0, n)
    source = "those of the run's multinomial noise" if usable else "a favourable choice"
    return found.model_copy(
        update={
            "limits": (
                *found.limits,
                f"f = 1 is assumed, the most favourable case; p1 and p2 are {source} (p1 read as the noise's "
                "probability of 0, p2 as that of 1/2).",
            )
        }
    )


def certify_run(
    run: Run,
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
    masks: Sequence[tuple[float, float]] = (),
    progress: Progress = silent,
) -> tuple[Certificate, ...]:
    """Return certificates of a finished run on the test data of its task.

    Devices come from a stream of their own, and the fleet that the run's search drew is refused.

    Args:
        run: From `load_run`.
        hardware: What devices are drawn from; the run's own by default.
        statements: As for `certify`; by default those of its default that the hardware allows.
        calibrated: As for `Law.of`.
        gain: As for `Law.of`.
        ablation: As for `Law.of`.
        deployment: What each device gets beside its weights; inputs that it is shown are training inputs.
        n_devices: As for `certify`.
        alpha: As for `certify`.
        seed: As for `certify`.
        test_limit: Use only that many test samples, drawn at random once for all.
        masks: (p0, p_half) of the run's multinomial noise by layer, for "published".
        progress: Told as devices are done.
    """
    hardware = hardware or hardware_of(run.model)
    names = _checked(statements_on(hardware) if statements is None else statements)
    model = run.on(hardware)
    is_array = hardware.array is not None
    if is_array and (gain is not None or ablation is not None):
        raise CertifyError("gains and ablations belong to the law on weights; leave out the array.")
    law = (
        hardware
        if is_array
        else Law.of(hardware, calibrated=calibrated, gain=gain, ablation=ablation)
    )
    data_seed, limit = run.config["seed"], run.config["limit"]
    deployed = deployment or Deployment()
    unlabelled = None
    if deployed.needs_inputs:
        train, _ = run.task.development(data_seed, limit)
        unlabelled = unlabelled_inputs(train, data_seed, deployed.samples)
    test = run.task.test(data_seed, limit)
    if test_limit is not None and test_limit < len(test.x):
        order = torch.randperm(len(test.x), generator=torch.Generator().manual_seed(_SUBSET_SEED))
        keep = order[:test_limit].sort().values
        test = Split(test.x[keep], test.y[keep])
    out: list[Certificate] = []
    sampled = [n for n in names if n not in ("box", "published")]
    if sampled:
        out.extend(
            certify(
                model,
                test,
                law,
                statements=sampled,
                n_devices=n_devices,
                alpha=alpha,
                seed=seed,
                deployment=deployed,
                unlabelled=unlabelled,
                used=(Draws(OBJECTIVE_SEED, _SEARCH_DEVICES),),
                progress=progress,
            )
        )
    if "box" in names:
        _check_plain(deployed)
        centre = None if is_array else hardware
        out.append(box_certificate(model, test, hardware=centre, method=_bounds_for(model)))
    if "published" in names:
        out.append(published(model, masks))
    return tuple(out)


def _bounds_for(model: nn.Module) -> Literal["interval", "linear"]:
    """Return linear bounds where they are cheap: without convolutions (bench/certify_lirpa.py)."""
    convolutions = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
    return "interval" if any(isinstance(m, convolutions) for m in model.modules()) else "linear"


def certify_chips(
    path: str | Path, run: Run | None = None, *, alpha: float = 0.05
) -> tuple[Certificate, ...]:
    """Return yield statements about real chips, from what was measured on a sample of them.

    Args:
        path: A CSV with one row a chip: a column "accuracy", or one column for each test input of the run's
            task, in order, with the class that the chip gave.
        run: The network on the chips; needed for classes.
        alpha: Chance that a certificate is false, at most.

    Raises:
        CertifyError: If the table cannot be read or does not fit, or holds too few chips.
    """
    try:
        scores = read_scores(path)
    except CertifyError as error:
        if run is None or "has no column" not in str(error):
            raise
    else:
        if ((scores < 0) | (scores > 1)).any():
            raise CertifyError(
                f"{path}: accuracies lie in [0, 1]; received {scores.min():g} to {scores.max():g}. Divide "
                "percentages by 100."
            )
        shares = [s for s in FLEET_SHARES if devices_needed(s, alpha) <= len(scores)]
        words = f"{len(scores)} measured chips ({Path(path).name})"
        return tuple(
            score_certificate(
                scores, share=s, alpha=alpha, score="accuracy", noun="chips", law_words=words
            )
            for s in shares or FLEET_SHARES[:1]
        )
    test = run.task.test(run.config["seed"], run.config["limit"])
    votes = read_votes(path, labels=test.y.numpy(), digital=predict(run.model, test.x))
    return tuple(_yields(votes, alpha, "label"))
