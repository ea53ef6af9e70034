"""S1 as a record: what `largest_radius` finds, with what it was found for. Statement G of the documentation."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from torch import Tensor, nn

from ohmloop.certify._box import BoxKind, BoxMethod, box_words, largest_radius
from ohmloop.certify._record import Certificate, data_hash, percent, weights_hash
from ohmloop.certify._votes import CLASS_RULES, ClassRule
from ohmloop.crossbar import Hardware
from ohmloop.errors import CertifyError
from ohmloop.nn import predict

SHARES = (0.1, 0.5, 0.9)


def _centre(hardware: Hardware | None) -> str:
    if hardware is None or hardware.device.rho is None or not hardware.use_rho:
        return "the trained weights"
    return f"the trained weights times the level table of {hardware.device.name}"


class BoxCertificate(Certificate):
    """How far every weight of one device may be off, all at once.

    Attributes:
        classes: The class that each input's statement is about.
        radii: By input, the largest radius at which every device of the box gives the class; 0 for none.
        box: "relative": |w' - w| <= r |w|. "log": w' = w exp(a), |a| <= r.
        method: "interval" or "linear" bounds.
        shares: Shares of the inputs.
        reach: The radius that is certified for each share of the inputs.
    """

    kind: Literal["box"] = "box"
    classes: tuple[int, ...]
    radii: tuple[float, ...]
    box: BoxKind
    method: BoxMethod
    shares: tuple[float, ...] = SHARES
    reach: tuple[float, ...]


def box_certificate(
    model: nn.Module,
    data: tuple[Tensor, Tensor | None],
    *,
    rule: ClassRule = "digital",
    hardware: Hardware | None = None,
    **options: Any,
) -> BoxCertificate:
    """Return how far every weight of a device may be off while each input keeps the class of the rule.

    Args:
        model: An analog model in eval mode.
        data: Inputs ``n x ...`` and labels ``n`` or None.
        rule: What counts as right; inputs whose nominal device gives another class are abstained from.
        hardware: The box is centred at what this makes of the weights without noise.
        options: As for `largest_radius`: ``kind``, ``method``, ``shares``, ``batch_size``.
    """
    x, labels = data
    if rule == "label" and labels is None:
        raise CertifyError(
            'the class rule "label" needs the labels of the data, which were not given.'
        )
    found = largest_radius(model, x, hardware=hardware, **options)
    target = predict(model, x) if labels is None or rule == "digital" else labels.cpu().numpy()
    good = (found.classes == target) & found.certified
    radii = np.where(good, found.radii, 0.0)
    ranked = np.sort(radii)[::-1]
    reach = tuple(float(ranked[max(1, int(np.ceil(s * len(ranked) - 1e-9))) - 1]) for s in SHARES)
    none = "No claim: for no input does every device of any box provably give the class."
    words = "; ".join(
        f"for {percent(share)} of the inputs, "
        + box_words(r, kind=found.kind, shares=found.shares, n_weights=found.n_weights)
        for share, r in zip(SHARES, reach, strict=True)
        if r > 0
    )
    return BoxCertificate(
        statement="S1",
        theorem=f"statement G: {found.method} bounds over a box of weights",
        claim=f"For certain: {words}." if words else none,
        limits=(
            "It holds for a chip whose weights were measured to lie in the box; it assumes no law.",
            f"The box is centred at {_centre(hardware)}.",
            "It holds for these inputs, not for others of their kind.",
        ),
        weights=weights_hash(model),
        data=data_hash(x, labels),
        n_inputs=len(x),
        multiplicity="none needed: nothing is random",
        class_rule=f"{rule}: {CLASS_RULES[rule]}",
        abstentions=int((radii == 0).sum()),
        classes=tuple(int(c) for c in target),
        radii=tuple(float(r) for r in radii),
        box=found.kind,
        method=found.method,
        reach=reach,
    )
