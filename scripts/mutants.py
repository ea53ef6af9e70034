"""Plant errors in certificates, one at a time, and show that a test catches each.

Every mutant is an error that makes a certificate claim too much, or make its claim from the wrong draws. It is
planted in a copy of the package; the working tree is not touched. Exits with 1 if a mutant survives, or if the
tests fail without one.

    python scripts/mutants.py              all, the slow attack included
    python scripts/mutants.py --only ball  those whose name contains a word
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import multiprocessing
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from _box_mutants import BOX_MUTANTS

ROOT = Path(__file__).resolve().parents[1]
TABLE = "tests/certify/test_table.py::test_"
BOUNDS = "tests/certify/test_bounds.py::test_"
OVERCLAIMS = "tests/certify/test_overclaims.py::test_"
GROUPS = "tests/certify/test_groups.py::test_"
CERTIFICATES = "tests/certify/test_certificates.py::test_"
ATTACK = (
    "tests/certify/test_attack.py::test_gradient_attack_at_the_certified_radius_leaves_the_majority"
)
COVERAGE = f"{TABLE}coverage_of_3000_repetitions_at_alpha_5_percent[gaussian]"
SLOW_TO_LOAD = (
    "torch.func",
    "scipy.stats",
    "pydantic",
    "botorch",
    "sklearn.datasets",
    "rich.table",
)


class Mutant(NamedTuple):
    """One planted error.

    Attributes:
        name: What is wrong.
        file: Within the package.
        before: Text that stands there exactly once.
        after: What is put in its place.
        test: Of pytest, that must fail.
    """

    name: str
    file: str
    before: str
    after: str
    test: str


MUTANTS = (
    # Numbers from draws.
    Mutant(
        "point estimate instead of a bound",
        "certify/_yield.py",
        "lower = clopper_pearson(right.sum(0), n, each)",
        "lower = right.mean(0)",
        COVERAGE,
    ),
    Mutant(
        "alpha doubled",
        "certify/_yield.py",
        "each = alpha / (inputs + (inputs > 1))",
        "each = 2 * alpha / (inputs + (inputs > 1))",
        COVERAGE,
    ),
    Mutant(
        "confidence taken for alpha",
        "certify/_bounds.py",
        "stats.beta.ppf(alpha, inner",
        "stats.beta.ppf(1 - alpha, inner",
        COVERAGE,
    ),
    Mutant(
        "two-sided interval",
        "certify/_bounds.py",
        "stats.beta.ppf(alpha, inner",
        "stats.beta.ppf(alpha / 2, inner",
        COVERAGE,
    ),
    Mutant(
        "one draw reused by eight devices of a batch",
        "certify/_law.py",
        "device_seed(self.seed, device)",
        "device_seed(self.seed, device // 8)",
        COVERAGE,
    ),
    Mutant(
        "biases without noise",
        "certify/_law.py",
        "out[name] = (block * p).to(p.dtype)",
        "out[name] = (block * p if p.ndim > 1 else p.expand(len(block), -1)).to(p.dtype)",
        COVERAGE,
    ),
    Mutant(
        "tensors share their noise",
        "certify/_law.py",
        "            start += p.numel()\n        return out",
        "        return out",
        f"{TABLE}every_device_has_noise_of_its_own_in_every_weight",
    ),
    Mutant(
        "class selected on the draws that estimate it",
        "certify/_votes.py",
        'found = self.digital if rule == "digital" else self.labels',
        'found = np.array([np.bincount(c).argmax() for c in self.classes.T]) if rule == "digital" '
        "else self.labels",
        COVERAGE,
    ),
    Mutant(
        "radius from the point estimate",
        "certify/_drift.py",
        "lower = clopper_pearson(right.sum(0), votes.n_devices, alpha / votes.n_inputs)",
        "lower = right.mean(0) * (1 - 1e-9)",
        f"{TABLE}coverage_of_the_shifted_statement",
    ),
    Mutant(
        "no correction for many inputs (yield)",
        "certify/_yield.py",
        "each = alpha / (inputs + (inputs > 1))",
        "each = alpha",
        f"{TABLE}500_identical_inputs_count_once",
    ),
    Mutant(
        "no correction for many inputs (drift)",
        "certify/_drift.py",
        "votes.n_devices, alpha / votes.n_inputs)",
        "votes.n_devices, alpha)",
        f"{TABLE}simultaneous_statements_take_alpha_over_n",
    ),
    Mutant(
        "no correction for the points of a curve",
        "certify/_percentile.py",
        "each = alpha / points",
        "each = alpha",
        f"{TABLE}points_of_curves_take_alpha_over_their_number",
    ),
    Mutant(
        "inputs averaged as if independent",
        "certify/_votes.py",
        "np.asarray(self.right(rule).mean(1), dtype=np.float64)",
        "np.full(len(self.classes), self.right(rule).mean())",
        f"{TABLE}coverage_of_identical_inputs",
    ),
    Mutant(
        "inputs counted as devices",
        "certify/_yield.py",
        "joint = float(clopper_pearson(int(right.all(1).sum()), n, each))",
        "joint = float(clopper_pearson(int(right.sum()), right.size, each))",
        f"{TABLE}500_identical_inputs_count_once",
    ),
    Mutant(
        "infinite radius where all devices agree",
        "certify/_bounds.py",
        "np.where(count == n, alpha ** (1 / n), bound)",
        "np.where(count == n, 1.0, bound)",
        f"{TABLE}all_of_n_gives_alpha_to_the_1_over_n_and_a_finite_radius",
    ),
    Mutant(
        "percentile of the sample as a bound",
        "certify/_bounds.py",
        "return float(found[rank_for(len(found), share, alpha) - 1])",
        "return float(np.percentile(found, 100 * (1 - share)))",
        f"{TABLE}order_statistic_on_normal_scores_covers_95_percent",
    ),
    Mutant(
        "rank one too high",
        "certify/_bounds.py",
        "    return max(j, 1)",
        "    return j + 1",
        f"{TABLE}order_statistic_on_normal_scores_covers_95_percent",
    ),
    Mutant(
        "worst device never seen is as good as the worst seen",
        "certify/_bounds.py",
        "np.concatenate([[low], found[ranks - 1]])",
        "np.concatenate([found[:1], found[ranks - 1]])",
        f"{BOUNDS}tail_mean_covers_where_a_rare_failure_is_missed",
    ),
    # Geometry and theorems.
    Mutant(
        "wrong scale of the shift",
        "certify/_bounds.py",
        "np.asarray(ndtr(ndtri(chance) - cost.max()), dtype=np.float64)",
        "np.asarray(ndtr(ndtri(chance) - cost.max() / 2), dtype=np.float64)",
        f"{TABLE}certified_class_probability_after_the_worst_shift_is_below_the_true_one",
    ),
    Mutant(
        "L1 norm",
        "certify/_groups.py",
        "square = float((delta**2 * weight).sum())",
        "square = float((np.abs(delta) * weight**0.5).sum()) ** 2 / len(delta)",
        f"{TABLE}weight_change_of_exactly_that_norm_flips_the_class",
    ),
    Mutant(
        "radius three times too long",
        "certify/_drift.py",
        "np.where(lower > 0.5, largest_shift(lower, 0.5, unit), np.nan)",
        "np.where(lower > 0.5, 3 * largest_shift(lower, 0.5, unit), np.nan)",
        f"{ATTACK}[conv]",
    ),
    Mutant(
        "radius a tenth too long",
        "certify/_drift.py",
        "np.where(lower > 0.5, largest_shift(lower, 0.5, unit), np.nan)",
        "np.where(lower > 0.5, 1.1 * largest_shift(lower, 0.5, unit), np.nan)",
        f"{TABLE}linear_radius_never_exceeds_the_exact_one_and_tends_to_it",
    ),
    Mutant(
        "max-sigma ball in the cost of a shift",
        "certify/_groups.py",
        "            weight = 1 / (self.sigma * f) ** 2\n            square",
        "            weight = 1 / (self.sigma.max() + 0 * self.sigma * f) ** 2\n            square",
        f"{TABLE}two_groups_with_sigma_005_and_05_are_an_ellipsoid_not_a_ball",
    ),
    Mutant(
        "max-sigma ball in the translation",
        "certify/_groups.py",
        "unit = np.sqrt(k) / self.sigma.min()",
        "unit = np.sqrt(k) / self.sigma.max()",
        f"{TABLE}two_groups_with_sigma_005_and_05_are_an_ellipsoid_not_a_ball",
    ),
    Mutant(
        "k cells cost as much as one",
        "certify/_groups.py",
        "unit = np.sqrt(k) / self.sigma.min()",
        "unit = 1 / self.sigma.min()",
        f"{GROUPS}costs_are_those_of_the_dense_covariance",
    ),
    Mutant(
        "a shift of part of a group gets the whole group's gain",
        "certify/_groups.py",
        "square = own * (1 + self.tau**2 * (all_ - own)) / (1 + self.tau**2 * all_)",
        "square = own / (1 + self.tau**2 * all_)",
        f"{GROUPS}costs_are_those_of_the_dense_covariance",
    ),
    Mutant(
        "common gain drawn without effect on the cells",
        "certify/_law.py",
        "noise += law.gain.tau * common[..., self._gains[0]]",
        "noise += 0 * common[..., self._gains[0]]",
        f"{GROUPS}drawn_devices_have_the_covariance_that_shifts_are_costed_by",
    ),
    Mutant(
        "statement A where the spread follows the weight",
        "certify/_drift.py",
        'if law.spread == "following":',
        "if False:",
        f"{TABLE}statement_a_is_refused_where_the_spread_follows_the_weight",
    ),
    Mutant(
        "log radius given as relative radius",
        "certify/_drift.py",
        "return -math.expm1(-log_radius)",
        "return log_radius",
        f"{TABLE}relative_ball_cannot_be_larger",
    ),
    Mutant(
        "log ball by its outer end",
        "certify/_drift.py",
        "return -math.expm1(-log_radius)",
        "return min(0.999, math.expm1(log_radius))",
        f"{TABLE}relative_ball_lies_inside_the_log_ball",
    ),
    Mutant(
        "relative change taken for a log change",
        "certify/_drift.py",
        'np.log(ratio) if law.noise == "log-normal" else ratio - 1',
        "ratio - 1",
        f"{TABLE}shift_with_a_sign_change_or_a_moved_zero_is_no_shift_of_log_weights",
    ),
    Mutant(
        "sign changes pass as shifts",
        "certify/_drift.py",
        'if law.noise == "log-normal" and (ratio <= 0).any():',
        "if False:",
        f"{TABLE}shift_with_a_sign_change_or_a_moved_zero_is_no_shift_of_log_weights",
    ),
    Mutant(
        "levels of sigma averaged as if known for each device",
        "certify/_bounds.py",
        "kept = np.where(chance.reshape(-1) > 0, ndtr(low / cost - cost / 2).mean(-1), 0.0)",
        "kept = ndtr(ndtri(chance.reshape(-1, 1)) - cost).mean(-1)",
        f"{BOUNDS}no_classifier_of_a_mixture_does_worse_than_the_bound",
    ),
    Mutant(
        "gains that grow with sigma",
        "certify/_drift.py",
        "return 1 / (factors if law.gain is None else np.minimum(factors, 1.0))",
        "return 1 / factors",
        f"{OVERCLAIMS}gain_does_not_grow_with_sigma_and_shifts_of_it_cost_no_less",
    ),
    Mutant(
        "a shift of all arrays at the price of one",
        "certify/_groups.py",
        "np.sqrt(self.copies * max(square, 0.0))",
        "np.sqrt(max(square, 0.0))",
        f"{OVERCLAIMS}same_shift_in_all_arrays_costs_more_than_in_one",
    ),
    Mutant(
        "centre of mean-1 noise fixed while sigma grows",
        "certify/_divergence.py",
        'pull = 0.5 * sigma * (ratio**2 - 1) if law.convention == "mean-1" else 0.0',
        "pull = 0.0",
        f"{OVERCLAIMS}larger_sigma_moves_the_centre_of_mean_1_noise_too",
    ),
    Mutant(
        "all inputs at once for free",
        "certify/_yield.py",
        "each = alpha / (inputs + (inputs > 1))\n"
        "    lower = clopper_pearson(right.sum(0), n, each)\n"
        "    joint = float(clopper_pearson(int(right.all(1).sum()), n, each))",
        "lower = clopper_pearson(right.sum(0), n, alpha / inputs)\n"
        "    joint = float(clopper_pearson(int(right.all(1).sum()), n, alpha))",
        f"{OVERCLAIMS}whole_claim_of_a_yield_is_false_with_alpha_at_most",
    ),
    Mutant(
        "percentile smoothing in the wrong direction",
        "certify/_bounds.py",
        "float(1 - ndtr(-(ndtri(keep) + cost.max())))",
        "float(1 - ndtr(-(ndtri(keep) - cost.max())))",
        f"{TABLE}accuracy_of_a_ladder_has_the_exact_quantiles_before_and_after_a_shift",
    ),
    Mutant(
        "additive noise under a multiplicative law",
        "certify/_law.py",
        "out[name] = (block * p).to(p.dtype)",
        "out[name] = (block - 1 + p).to(p.dtype)",
        f"{TABLE}scaling_a_pair_of_layers_changes_nothing",
    ),
    Mutant(
        "tiles counted along the wrong axis",
        "certify/_groups.py",
        "(out // columns << 20) + into // rows",
        "(out // rows << 20) + into // columns",
        f"{GROUPS}layers_columns_and_tiles_are_what_an_array_holds",
    ),
    Mutant(
        "faults: r groups hidden as often as one",
        "certify/_faults.py",
        "while p - (1 - q ** (r + 1)) > 0.5:",
        "while r < 9 and p - (1 - q) > 0.5:",
        f"{CERTIFICATES}faults_keep_what_enumeration_says",
    ),
    Mutant(
        "faults cost nothing",
        "certify/_faults.py",
        "gone = 1 - self.probability**n_faults",
        "gone = 0 * n_faults",
        f"{CERTIFICATES}faults_keep_what_enumeration_says",
    ),
    Mutant(
        "spread that follows the weight left out of the divergence",
        "certify/_divergence.py",
        "        ratio = 1 + amount\n",
        "        ratio = 1 + 0 * amount\n",
        f"{CERTIFICATES}divergence_of_a_shift_is_that_of_normal_laws",
    ),
    Mutant(
        "twice the divergence",
        "certify/_bounds.py",
        "found = -0.5 * (math.log(4)",
        "found = -1.0 * (math.log(4)",
        f"{BOUNDS}majority_is_kept_up_to_its_divergence",
    ),
    # Laws.
    Mutant(
        "mean-1 and median-1 confused",
        "certify/_law.py",
        'if law.convention == "mean-1":',
        'if law.convention == "median-1":',
        f"{CERTIFICATES}conventions_are_different_laws",
    ),
    Mutant(
        "uncertainty of sigma dropped",
        "certify/_law.py",
        'levels=(1.0,) if kind == "fixed" else _levels(device)',
        "levels=(1.0,)",
        f"{CERTIFICATES}predictive_probability_is_the_mean_over_the_calibration",
    ),
    Mutant(
        "level table dropped",
        "certify/_law.py",
        "rho=device.rho if hardware.use_rho else None",
        "rho=None",
        f"{CERTIFICATES}class_rule_is_the_digital_class_even_where_devices_disagree",
    ),
    Mutant(
        "deployment dropped",
        "certify/_votes.py",
        "            sampler,\n            n_devices=n_devices,\n            deployment=deployed,",
        "            sampler,\n            n_devices=n_devices,\n            deployment=None,",
        f"{CERTIFICATES}deployment_is_part_of_the_device",
    ),
    # Refusals and abstentions.
    Mutant(
        "batch norm in training mode accepted",
        "certify/_votes.py",
        "    _check_model(model)\n",
        "",
        f"{CERTIFICATES}batch_norm_in_training_mode_is_refused",
    ),
    Mutant(
        "missing noise accepted",
        "certify/_votes.py",
        "        _check_noise(law, parameters, fleet)\n",
        "",
        f"{CERTIFICATES}noise_missing_on_a_mapped_tensor_is_refused",
    ),
    Mutant(
        "used draws accepted",
        "certify/_votes.py",
        "        if mine & theirs:",
        "        if False:",
        f"{CERTIFICATES}draws_that_tuning_has_used_are_refused",
    ),
    Mutant(
        "certificates on the evaluation's devices",
        "certify/_votes.py",
        "fleet = STREAM + seed",
        "fleet = seed",
        f"{CERTIFICATES}certificates_share_no_device_with_searches_or_evaluations",
    ),
    Mutant(
        "outputs that are not finite accepted",
        "certify/_votes.py",
        '    _check_finite(classes, "a drawn device")\n',
        "",
        f"{CERTIFICATES}outputs_that_are_not_finite_are_refused",
    ),
    Mutant(
        "radius without a majority",
        "certify/_drift.py",
        "np.where(lower > 0.5, largest_shift(lower, 0.5, unit), np.nan)",
        "np.abs(largest_shift(lower, 0.01, unit))",
        f"{CERTIFICATES}drift_abstains_at_a_bound_of_one_half_and_gives_no_radius",
    ),
)

MUTANTS += tuple(
    Mutant(name, file.removeprefix("src/ohmloop/"), before, after, test)
    for name, file, before, after, test in BOX_MUTANTS
)


def planted(mutant: Mutant, folder: Path) -> Path:
    """Return a folder to import from that holds the package with the error in it."""
    package = folder / "src" / "ohmloop"
    shutil.copytree(ROOT / "src" / "ohmloop", package, ignore=shutil.ignore_patterns("__pycache__"))
    path = package / mutant.file
    text = path.read_text(encoding="utf-8")
    if text.count(mutant.before) != 1:
        raise SystemExit(
            f"{mutant.name}: its place stands {text.count(mutant.before)} times in {mutant.file}, not once. "
            "The code has changed; change the mutant too."
        )
    path.write_text(text.replace(mutant.before, mutant.after), encoding="utf-8")
    return package.parent


def tested(source: Path, tests: list[str]) -> tuple[int, str]:
    """Run tests on the package in ``source``, in this process; return pytest's exit code and its output."""
    import pytest

    sys.path[:0] = [str(source), str(ROOT)]
    sys.dont_write_bytecode = True
    os.chdir(ROOT)
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = pytest.main(["-x", "-q", "-p", "no:cacheprovider", *tests])
        import ohmloop
    assert Path(ohmloop.__file__).is_relative_to(source), "the tests ran on another package"
    return int(code), said.getvalue()


def judged(mutant: Mutant | None, tests: list[str]) -> tuple[str, str]:
    """Return "caught", "SURVIVED" or "BROKEN", and what pytest said; None stands for the package as it is."""
    if mutant is None:
        code, text = tested(ROOT / "src", tests)
    else:
        with tempfile.TemporaryDirectory() as folder:
            code, text = tested(planted(mutant, Path(folder)), tests)
    # A mutant that does not even import shows nothing.
    return {0: "SURVIVED", 1: "caught"}.get(code, "BROKEN"), text


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", default="", help="a word of the names of those to run")
    parser.add_argument("--jobs", type=int, default=1, help="how many side by side")
    options = parser.parse_args()
    chosen = [m for m in MUTANTS if options.only in m.name]
    tests = list(dict.fromkeys(m.test for m in chosen))
    # Each job is a fork of this process, which has loaded what is slow to load, but not the package.
    os.environ["OMP_NUM_THREADS"] = "1"
    for name in SLOW_TO_LOAD:
        importlib.import_module(name)
    jobs = [(None, tests), *((m, [m.test]) for m in chosen)]
    width, bad = max(len(m.name) for m in chosen), 0
    with multiprocessing.get_context("fork").Pool(max(1, options.jobs), maxtasksperchild=1) as pool:
        results = [pool.apply_async(judged, job) for job in jobs]
        verdict, text = results[0].get()
        if verdict != "SURVIVED":
            print(text)
            print("The tests fail without any mutant.")
            return 1
        print(f"{len(tests)} tests pass without a mutant; {len(chosen)} mutants:", flush=True)
        for mutant, result in zip(chosen, results[1:], strict=True):
            verdict, text = result.get()
            print(
                f"{mutant.name:<{width}}  {verdict:<8}  {mutant.test.partition('::')[2]}",
                flush=True,
            )
            if verdict != "caught":
                bad += 1
                print(text[-2000:])
    print(f"{len(chosen) - bad} of {len(chosen)} caught.")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
