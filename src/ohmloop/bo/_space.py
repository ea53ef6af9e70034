"""A search space: mixed variables, conditions, simplexes, constraints; points become numbers and back.

Inside, ``n`` points are a table, ``n x v`` floats: a number for a number, the index of its option for
a categorical variable, NaN where a conditional variable is inactive.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ohmloop.bo._expression import Expression
from ohmloop.bo._variables import Categorical, Ordinal, Point, Real, Value, Variable, nearest_text
from ohmloop.errors import SearchError

Table = NDArray[np.float64]


@dataclass(frozen=True)
class Simplex:
    """Variables that are shares of a whole.

    Attributes:
        names: Two or more real variables.
        total: What they add up to.
    """

    names: tuple[str, ...]
    total: float = 1.0


@dataclass(frozen=True)
class Space:
    """The recipes that can be made.

    Attributes:
        variables: In the order of a recipe sheet.
        constraints: Conditions over the variables, such as ``Expression("a * b <= 9000")``; one that
            names an inactive variable does not apply there.
        simplexes: Groups of variables with a fixed sum.
    """

    variables: tuple[Variable, ...]
    constraints: tuple[Expression, ...] = ()
    simplexes: tuple[Simplex, ...] = ()

    def __post_init__(self) -> None:
        names = [v.name for v in self.variables]
        if not names or len(set(names)) != len(names):
            raise SearchError(f"a space needs one or more variables of different names: {names}.")
        for condition in self.constraints:
            self._known(condition.names, f'constraint "{condition.text}"')
            if not condition.is_condition:
                raise SearchError(
                    f'constraint "{condition.text}" compares nothing; write for example "a + b <= 2".'
                )
        for variable in self.variables:
            if variable.when is not None:
                self._check_when(variable)
        self._check_simplexes()

    def _known(self, used: frozenset[str], where: str) -> None:
        for name in sorted(used - set(self.names)):
            raise SearchError(
                f'{where} names "{name}", which is no variable.{nearest_text(name, self.names)}'
            )

    def _check_when(self, variable: Variable) -> None:
        assert variable.when is not None
        parent_name, seen = variable.when.parent, {variable.name}
        self._known(frozenset([parent_name]), f'the condition of "{variable.name}"')
        up: Variable | None = self[parent_name]
        while up is not None:
            if up.name in seen:
                raise SearchError(f'the conditions of "{variable.name}" go round in a circle.')
            seen.add(up.name)
            up = self[up.when.parent] if up.when is not None else None
        parent = self[parent_name]
        if isinstance(parent, Categorical):
            strange = [x for x in variable.when.values if x not in parent.known]
            if strange or not variable.when.values:
                raise SearchError(
                    f'the condition of "{variable.name}": "{parent_name}" has the options '
                    f"{list(parent.options)}, not {strange}."
                )
        elif any(isinstance(x, str) for x in variable.when.values):
            raise SearchError(
                f'the condition of "{variable.name}": "{parent_name}" is a number, '
                f"received {list(variable.when.values)}."
            )

    def _check_simplexes(self) -> None:
        used: set[str] = set()
        for simplex in self.simplexes:
            self._known(frozenset(simplex.names), "a simplex")
            members = [self._share_of(name) for name in simplex.names]
            if len(members) < 2 or used & set(simplex.names):
                raise SearchError(
                    f"a simplex needs two or more variables, each in one simplex only: {simplex.names}."
                )
            used |= set(simplex.names)
            if len({member.step for member in members}) > 1:
                raise SearchError(
                    f"{simplex.names} add up to {simplex.total:g}: give all of them the same step, or none."
                )
            low = sum(member.low for member in members)
            high = sum(_last_step(member) for member in members)
            if not low <= simplex.total <= high:
                raise SearchError(
                    f"{simplex.names} cannot add up to {simplex.total:g}: their bounds add up to {low:g} "
                    f"and {high:g}."
                )

    def _share_of(self, name: str) -> Real:
        variable = self[name]
        if not isinstance(variable, Real) or variable.when:
            raise SearchError(
                f'"{name}" stands in a simplex; that needs an unconditional real variable.'
            )
        return variable

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the variables."""
        return tuple(v.name for v in self.variables)

    @cached_property
    def _index(self) -> dict[str, int]:
        return {name: k for k, name in enumerate(self.names)}

    def __getitem__(self, name: str) -> Variable:
        return self.variables[self._index[name]]

    @cached_property
    def _order(self) -> list[int]:
        """Parents before children."""
        done: list[int] = []
        while len(done) < len(self.variables):
            for k, v in enumerate(self.variables):
                if k not in done and (v.when is None or self._index[v.when.parent] in done):
                    done.append(k)
        return done

    # -- points and tables ------------------------------------------------------------------

    def to_table(self, points: Sequence[Point]) -> Table:
        """Return ``n x v`` numbers of ``n`` points; values outside the bounds are allowed.

        Raises:
            SearchError: If a point misses an active variable, names an unknown one, or has text
                where a number belongs.
        """
        table = self._by_columns(points)
        return self._by_rows(points) if table is None else table

    def _by_columns(self, points: Sequence[Point]) -> Table | None:
        """Return the table of ``points``, None if anything is wrong with one: lists may be very long."""
        known = self._index.keys()
        if not all(point.keys() <= known for point in points):
            return None
        table = np.full((len(points), len(self.variables)), np.nan)
        for k in self._order:
            variable = self.variables[k]
            here = np.flatnonzero(self._active(variable, table))
            values = [points[row].get(variable.name) for row in here.tolist()]
            if any(value is None or value == "" for value in values):
                return None
            if isinstance(variable, Categorical):
                codes = {option: float(code) for code, option in enumerate(variable.known)}
                values = [codes.get(str(value), np.nan) for value in values]
            try:
                column = np.array(values, dtype=np.float64)
            except ValueError:
                return None
            if not np.isfinite(column).all():
                return None
            table[here, k] = column
        return table

    def _by_rows(self, points: Sequence[Point]) -> Table:
        """Return the same row by row, so that an error names the first point's."""
        table = np.full((len(points), len(self.variables)), np.nan)
        for row, point in enumerate(points):
            for name in point:
                if name not in self._index:
                    raise SearchError(
                        f'"{name}" is no variable of the space.{nearest_text(name, self.names)}'
                    )
            for k in self._order:
                variable = self.variables[k]
                if self._active(variable, table[row][None, :])[0]:
                    table[row, k] = self._number(variable, point.get(variable.name))
        return table

    def _number(self, variable: Variable, value: Value | None) -> float:
        if value is None or value == "":
            raise SearchError(f'the point has no value for "{variable.name}".')
        if isinstance(variable, Categorical):
            if str(value) not in variable.known:
                raise SearchError(
                    f'"{value}" is no option of "{variable.name}"; options: {", ".join(variable.known)}.'
                    f"{nearest_text(str(value), variable.known)}"
                )
            return float(variable.known.index(str(value)))
        try:
            number = float(value)
        except ValueError:
            number = np.nan
        if not np.isfinite(number):
            raise SearchError(f'"{variable.name}" needs a number; received "{value}".')
        return number

    def _active(self, variable: Variable, table: Table) -> NDArray[np.bool_]:
        if variable.when is None:
            return np.ones(len(table), dtype=bool)
        parent = self[variable.when.parent]
        column = table[:, self._index[parent.name]]
        if isinstance(parent, Categorical):
            wanted = [float(parent.known.index(str(x))) for x in variable.when.values]
        else:
            wanted = [float(x) for x in variable.when.values]
        return np.isin(column, wanted)

    def to_points(self, table: Table) -> list[dict[str, Value]]:
        """Return the points of a table; inactive variables are left out."""
        points = []
        for row in table:
            point: dict[str, Value] = {}
            for variable, number in zip(self.variables, row, strict=True):
                if np.isnan(number):
                    continue
                if isinstance(variable, Categorical):
                    point[variable.name] = variable.known[int(number)]
                else:
                    point[variable.name] = float(number)
            points.append(point)
        return points

    def columns(self, table: Table) -> dict[str, NDArray[Any]]:
        """Return name -> ``n`` values, text for categorical variables (None where inactive)."""
        out: dict[str, NDArray[Any]] = {}
        for k, variable in enumerate(self.variables):
            if isinstance(variable, Categorical):
                known = np.array([*variable.known, ""], dtype=object)
                codes = np.where(np.isnan(table[:, k]), len(variable.known), table[:, k])
                out[variable.name] = known[codes.astype(int)]
            else:
                out[variable.name] = table[:, k]
        return out

    # -- constraints ------------------------------------------------------------------------

    def violation(self, table: Table) -> NDArray[np.float64]:
        """Return how far each row is from satisfying every constraint and simplex; 0 is feasible."""
        columns = self.columns(table)
        total = np.zeros(len(table))
        for condition in self.constraints:
            named = [self._index[name] for name in condition.names]
            applies = ~np.isnan(table[:, named]).any(1) if named else np.ones(len(table), bool)
            total += np.where(applies, condition.violation(columns), 0.0)
        for simplex in self.simplexes:
            members = [self._index[name] for name in simplex.names]
            gap = np.abs(table[:, members].sum(1) - simplex.total)
            total += np.where(gap <= 1e-6 * max(1.0, abs(simplex.total)), 0.0, gap)
        return total

    def problems(self, point: Point) -> list[str]:
        """Return in words why a point cannot be proposed; empty when it can."""
        table = self.to_table([point])
        out = []
        for variable, number in zip(self.variables, table[0], strict=True):
            if np.isnan(number):
                continue
            if isinstance(variable, Categorical):
                if variable.known[int(number)] in variable.retired:
                    out.append(
                        f'"{variable.known[int(number)]}" is a retired option of "{variable.name}"'
                    )
            elif isinstance(variable, Real) and not variable.low <= number <= variable.high:
                out.append(
                    f'"{variable.name}" = {number:g} lies outside {variable.low:g} to {variable.high:g}'
                )
            elif variable.n_values is not None and abs(
                variable.snap(np.array([number]))[0] - number
            ) > 1e-9 * max(1.0, abs(number)):
                out.append(f'"{variable.name}" = {number:g} is not on its steps')
        columns = self.columns(table)
        for condition in self.constraints:
            named = [self._index[name] for name in condition.names]
            if not np.isnan(table[0, named]).any() and condition.violation(columns)[0] > 0:
                out.append(f'the constraint "{condition.text}" does not hold')
        for simplex in self.simplexes:
            total = sum(table[0, self._index[name]] for name in simplex.names)
            if abs(total - simplex.total) > 1e-6 * max(1.0, abs(simplex.total)):
                out.append(f"{' + '.join(simplex.names)} is {total:g}, not {simplex.total:g}")
        return out

    # -- sampling ---------------------------------------------------------------------------

    def sample(
        self, n: int, rng: np.random.Generator, fixed: Mapping[str, Value] | None = None
    ) -> Table:
        """Draw ``n`` feasible rows, uniformly as far as constraints allow.

        Args:
            n: How many.
            rng: Source of randomness.
            fixed: Name -> value that every row has (pinned and context variables).

        Raises:
            SearchError: If no feasible point is found.
        """
        found: list[Table] = []
        count, draws = 0, 0
        worst: Table | None = None
        while count < n and draws < 20:
            table = self.complete(rng.random((max(2 * n, 256), len(self.variables))), rng, fixed)
            missed = self.violation(table)
            good = table[missed == 0]
            worst = table[np.argsort(missed)[:64]]
            found.append(good)
            count += len(good)
            draws += 1
            if draws >= 5 and count < n / 20:
                break  # the feasible part is small: walk into and through it instead
        if count < n:
            assert worst is not None
            found.append(self._walk(np.vstack([*found, worst]), n - count, rng, fixed))
        return np.vstack(found)[:n]

    def _walk(
        self, start: Table, n: int, rng: np.random.Generator, fixed: Mapping[str, Value] | None
    ) -> Table:
        """Reach the feasible part by small random steps, then wander in it."""
        crowd, missed = start, self.violation(start)
        found: list[Table] = []
        count = 0
        for turn in range(400):
            scale = 0.3 * 0.5 ** (turn % 8)
            step = self.perturb(crowd[rng.integers(len(crowd), size=256)], scale, rng, fixed)
            far = self.violation(step)
            found.append(step[far == 0])
            count += len(found[-1])
            crowd, missed = np.vstack([crowd, step]), np.concatenate([missed, far])
            feasible = np.flatnonzero(missed == 0)
            keep = (
                rng.choice(feasible, min(64, len(feasible)), replace=False)
                if len(feasible)
                else np.argsort(missed)[:64]
            )
            crowd, missed = crowd[keep], missed[keep]
            if count >= n:
                return np.vstack(found)[:n]
        raise SearchError(
            "no recipe satisfies all constraints together: "
            + "; ".join(f'"{c.text}"' for c in self.constraints)
            + (f" with {dict(fixed)} held" if fixed else "")
            + ". Loosen one of them or the bounds."
        )

    def complete(
        self,
        u: NDArray[np.float64],
        rng: np.random.Generator,
        fixed: Mapping[str, Value] | None = None,
    ) -> Table:
        """Return the rows for ``n x v`` uniform numbers: values on their steps, simplexes added up."""
        table = np.empty_like(u)
        for k, variable in enumerate(self.variables):
            if isinstance(variable, Categorical):
                size = len(variable.options)
                table[:, k] = np.minimum((u[:, k] * size).astype(int), size - 1)
            else:
                table[:, k] = variable.from_unit(u[:, k])
        for simplex in self.simplexes:
            members = [self._index[name] for name in simplex.names]
            shares = rng.dirichlet(np.ones(len(members)), size=len(u)) * simplex.total
            table[:, members] = shares
        return self.repair(table, fixed)

    def perturb(
        self,
        table: Table,
        scale: float,
        rng: np.random.Generator,
        fixed: Mapping[str, Value] | None = None,
    ) -> Table:
        """Return neighbours of the rows: some variables moved by about ``scale`` of their range."""
        out = table.copy()
        n, v = out.shape
        moved = rng.random((n, v)) < max(0.3, 1.5 / v)
        moved[np.arange(n), rng.integers(v, size=n)] = True
        for k, variable in enumerate(self.variables):
            rows = moved[:, k] | np.isnan(out[:, k])
            if isinstance(variable, Categorical):
                rows &= (rng.random(n) < max(scale, 0.1)) | np.isnan(out[:, k])
                out[rows, k] = rng.integers(len(variable.options), size=int(rows.sum()))
                continue
            unit = variable.to_unit(np.nan_to_num(out[:, k], nan=0.0))
            unit[np.isnan(out[:, k])] = rng.random(int(np.isnan(out[:, k]).sum()))
            steps = rng.normal(0, scale, n)
            if variable.n_values is not None:  # a step smaller than the grid would move nothing
                least = 1.0 / max(variable.n_values - 1, 1)
                steps = np.sign(steps) * np.maximum(np.abs(steps), least)
            unit = np.where(rows, unit + steps, unit)
            unit = np.abs(unit)  # reflect at the bounds
            unit = np.where(unit > 1, 2 - unit, unit)
            if isinstance(variable, Ordinal):
                low, high = variable.levels[0], variable.levels[-1]
                moved_to = variable.snap(low + np.clip(unit, 0, 1) * (high - low))
            else:
                moved_to = variable.from_unit(unit)
            out[:, k] = np.where(rows, moved_to, out[:, k])
        return self.repair(out, fixed)

    def repair(self, table: Table, fixed: Mapping[str, Value] | None = None) -> Table:
        """Set fixed values, make simplexes add up on their steps, blank inactive variables."""
        out = table.copy()
        held = {
            self._index[name]: self._number(self[name], value)
            for name, value in (fixed or {}).items()
        }
        for k, number in held.items():
            out[:, k] = number
        for simplex in self.simplexes:
            members = [self._index[name] for name in simplex.names]
            free = [k for k in members if k not in held]
            rest = simplex.total - sum(held[k] for k in members if k in held)
            if free:
                out[:, free] = self._share(out[:, free], free, rest)
        for k in self._order:
            variable = self.variables[k]
            out[~self._active(variable, out), k] = np.nan
        return out

    def _share(self, shares: Table, members: list[int], total: float) -> Table:
        """Move shares onto the simplex within their bounds, on the grid where they have a step."""
        parts = [self._share_of(self.names[k]) for k in members]
        low = np.array([p.low for p in parts])
        high = np.array([_last_step(p) for p in parts])
        shares = np.clip(np.nan_to_num(shares), low, high)
        for _ in range(50):  # spread the remainder over the members that still have room
            gap = total - shares.sum(1, keepdims=True)
            if np.abs(gap).max() < 1e-12:
                break
            room = np.where(gap > 0, high - shares, shares - low)
            weight = room / np.maximum(room.sum(1, keepdims=True), 1e-300)
            shares = np.clip(shares + gap * weight, low, high)
        if step := parts[0].step:
            whole = np.floor((shares - low) / step + 1e-9)
            missing = np.round((total - (low + whole * step).sum(1)) / step).astype(int)
            fraction = (shares - low) / step - whole
            order = np.argsort(-fraction, axis=1)
            rank = np.argsort(order, axis=1)
            shares = np.round(low + (whole + (rank < missing[:, None])) * step, 12)
        return shares

    # -- features ---------------------------------------------------------------------------

    def features(
        self, table: Table, *, use_descriptors: bool = True
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Return ``n x f`` coordinates for a surrogate and, for each coordinate, its group.

        A real variable is one coordinate, 0 to 1 over its range. A categorical one is a few, such that two
        options stand about 1 apart. An inactive variable stands at its centre. Coordinates of a group
        share a lengthscale: group k is variable k; descriptors have groups of their own behind
        those, so that a surrogate can learn whether the name of an option says more than its properties.
        """
        blocks: list[NDArray[np.float64]] = []
        groups: list[int] = []
        n_groups = len(self.variables)
        for k, variable in enumerate(self.variables):
            column = table[:, k]
            if isinstance(variable, Categorical):
                embedding = variable.embedding(use_descriptors=use_descriptors)
                centre = embedding.mean(0, keepdims=True)
                codes = np.where(np.isnan(column), len(embedding), column).astype(int)
                block = np.vstack([embedding, centre])[codes]
                groups += [k] * len(embedding)
                if block.shape[1] > len(embedding):
                    groups += [n_groups] * (block.shape[1] - len(embedding))
                    n_groups += 1
            else:
                block = variable.to_unit(np.nan_to_num(column, nan=0.0))[:, None]
                block[np.isnan(column)] = 0.5
                groups.append(k)
            blocks.append(block)
        return np.hstack(blocks), np.array(groups, dtype=np.int64)


def _last_step(variable: Real) -> float:
    """Return the largest value that its step reaches."""
    if variable.step is None:
        return variable.high
    count = math.floor((variable.high - variable.low) / variable.step + 1e-9)
    return variable.low + count * variable.step
