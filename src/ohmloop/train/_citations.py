"""Where each training method comes from, for reports."""

from __future__ import annotations

_PEROVSKITE = (
    "Ye, Sun, Wang et al., Synergistic Development of Perovskite Memristors and Algorithms for Robust Analog "
    "Computing, arXiv 2412.02779 (2024)"
)
_CITATIONS = {
    "as-it-comes": "no training: the network as the task gives it",
    "asam": "Kwon et al., ICML 2021",
    "awp": "Wu et al., NeurIPS 2020",
    "bayesft": "BayesFT, arXiv 2210.01795 (DAC 2021)",
    "bayesmulti": _PEROVSKITE,
    "distillation": "Hinton et al., arXiv 1503.02531; on analog hardware Zhou et al., arXiv 2001.04974",
    "dropout": "Srivastava et al., JMLR 15, 1929 (2014)",
    "erm": "plain training by empirical risk minimisation",
    "hardware-aware": "Rasch et al., Nat. Commun. 14, 5282 (2023)",
    "multinomial": _PEROVSKITE,
    "negative-feedback": "Qin et al., IEEE TCAD 2025, arXiv 2305.14561",
    "right-censored": "Yan et al., ICCAD 2023",
    "sam": "Foret et al., ICLR 2021",
    "steady": "ohmloop, docs/steady.md",
    "tile-dropout": "ohmloop: dropout of what one array holds",
    "variance-aware": "Wang et al., arXiv 2503.16183",
    "weight-noise": "Joshi et al., Nat. Commun. 11, 2473 (2020)",
}


def method_citation(method: str) -> str:
    """Return where a method comes from; "" for one that is not known.

    Args:
        method: Its name, or the text with its settings.

    >>> method_citation("dropout:rate=0.3")
    'Srivastava et al., JMLR 15, 1929 (2014)'
    """
    return _CITATIONS.get(method.partition(":")[0].partition(" ")[0], "")
