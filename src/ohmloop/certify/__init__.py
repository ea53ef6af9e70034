"""What can be proven about a network on imperfect devices: bounds, and records that say what they claim."""

from ohmloop.certify._bounds import (
    clopper_pearson,
    devices_needed,
    kept_at_divergence,
    largest_shift,
    majority_divergence,
    needed_before,
    rank_for,
    reached_by,
    shifted,
    tail_mean,
)
from ohmloop.certify._box import BoxResult, box_words, certify_box, largest_radius
from ohmloop.certify._certify import (
    certify,
    certify_chips,
    certify_run,
    list_statements,
    published,
    statements_on,
)
from ohmloop.certify._chips import read_scores, read_votes
from ohmloop.certify._deterministic import BoxCertificate, box_certificate
from ohmloop.certify._divergence import KLCertificate, kl_certificate, normal_divergence
from ohmloop.certify._drift import (
    Curve,
    DriftCertificate,
    Translation,
    drift_certificate,
    relative_ball,
    shift_between,
    translate,
)
from ohmloop.certify._faults import (
    FaultCertificate,
    PublishedCertificate,
    fault_certificate,
    published_theorem,
)
from ohmloop.certify._groups import Cells, Shift
from ohmloop.certify._kept import certify_chips_folder, certify_folder, read_certificate
from ohmloop.certify._law import Ablation, Gain, Law, Sampler
from ohmloop.certify._percentile import PercentileCertificate, percentile_certificate
from ohmloop.certify._record import Certificate, data_hash, weights_hash
from ohmloop.certify._single import (
    crossbar_tolerance,
    crossbar_yield,
    crossbar_yield_bound,
    pair_yield,
)
from ohmloop.certify._votes import Draws, Votes, poll
from ohmloop.certify._yield import (
    QuantileCertificate,
    TailCertificate,
    YieldCertificate,
    quantile_certificate,
    score_certificate,
    tail_certificate,
    yield_certificate,
)

__all__ = [
    "Ablation",
    "BoxCertificate",
    "BoxResult",
    "Cells",
    "Certificate",
    "Curve",
    "Draws",
    "DriftCertificate",
    "FaultCertificate",
    "Gain",
    "KLCertificate",
    "Law",
    "PercentileCertificate",
    "PublishedCertificate",
    "QuantileCertificate",
    "Sampler",
    "Shift",
    "TailCertificate",
    "Translation",
    "Votes",
    "YieldCertificate",
    "box_certificate",
    "box_words",
    "certify",
    "certify_box",
    "certify_chips",
    "certify_chips_folder",
    "certify_folder",
    "certify_run",
    "clopper_pearson",
    "crossbar_tolerance",
    "crossbar_yield",
    "crossbar_yield_bound",
    "data_hash",
    "devices_needed",
    "drift_certificate",
    "fault_certificate",
    "kept_at_divergence",
    "kl_certificate",
    "largest_radius",
    "largest_shift",
    "list_statements",
    "majority_divergence",
    "needed_before",
    "normal_divergence",
    "pair_yield",
    "percentile_certificate",
    "poll",
    "published",
    "published_theorem",
    "quantile_certificate",
    "rank_for",
    "reached_by",
    "read_certificate",
    "read_scores",
    "read_votes",
    "relative_ball",
    "score_certificate",
    "shift_between",
    "shifted",
    "statements_on",
    "tail_certificate",
    "tail_mean",
    "translate",
    "weights_hash",
    "yield_certificate",
]
