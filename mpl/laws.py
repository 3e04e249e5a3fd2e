"""Loss-curve laws: the loss after a step as a function of the LRs up to it.

All of them are one formula. With S(t) the LR area up to step t, S_k(t) that from step k to t, and eta_k the LR:

    L(t) = M(S(t)) - B sum_{k <= t} (eta_{k-1} - eta_k) r_k G_k(t),    M(S) = L0 + A S^-alpha

M is the loss that the steps alone bring, and the sum is what the changes of the LR have earned by step t. A law says
what G (the response to a change) and r (its weight) are:

    mpl        G = 1 - (1 + C eta_k^-gamma S_k(t))^-beta, r = 1: the multi-power law, Luo et al. (arXiv:2503.12811)
    mpl_gamma0 the same with gamma = 0: the noise convolution of the functional scaling law (Li et al.,
               arXiv:2509.19189)
    mpl_risk   mpl with r_k = M(S_k): the noise that a lower LR removes is in proportion to the loss, as the gradient
               noise is (Mori et al., arXiv:2105.09557), so that the same drop earns less later in training
    momentum   G = 1 - lambda^(t - k + 1), r = 1: Tissue et al. (arXiv:2408.11029), B standing for C / (1 - lambda)
    power      no sum, and M of the number of steps instead of the area: the baseline, Hoffmann et al.
               (arXiv:2203.15556)

Parameters are positive and handled as logarithms. An LR of 0 is the limit of a small one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from mpl.errors import MplError
from mpl.terms import Terms
from train.schedules import Array


@dataclass(frozen=True)
class Law:
    """One of the laws above; `parameters` names what is fitted, in the order of every array of parameters."""

    name: str
    parameters: tuple[str, ...]
    risk: bool = False
    shape: Mapping[str, float] = field(default_factory=dict)
    """The centre of the prior on the parameters that shape the response; mpl.prior says why these."""

    def loss(self, log_parameters: Array, terms: Terms) -> Array:
        """Return L at each point: [n]."""
        return self._evaluate(log_parameters, terms, jacobian=False)[0]

    def jacobian(self, log_parameters: Array, terms: Terms) -> tuple[Array, Array]:
        """Return L [n] and its derivatives by the logarithms of the parameters [n, parameters]."""
        return self._evaluate(log_parameters, terms, jacobian=True)

    def gain(self, log_parameters: Array, terms: Terms) -> Array:
        """Return what the changes of the LR have earned at each point: [n]."""
        return self._main(log_parameters, terms)[0] - self.loss(log_parameters, terms)

    def _main(self, p: Array, terms: Terms) -> tuple[Array, Array]:
        """Return M and A S^-alpha at each point."""
        x = terms.area if "B" in self.parameters else terms.step + 1.0
        with np.errstate(divide="ignore"):
            power = np.exp(p[1] - np.exp(p[2]) * np.log(x))
        return np.exp(p[0]) + power, power

    def _evaluate(self, p: Array, terms: Terms, jacobian: bool) -> tuple[Array, Array]:
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            # Python's numbers leave arrays in single precision what they are.
            l0, _, alpha, *rest = np.exp(p).tolist()
            main, power = self._main(p, terms)
            x = terms.area if "B" in self.parameters else terms.step + 1.0
            columns = [np.full_like(main, l0), power, -alpha * power * np.log(x)]
            if "B" not in self.parameters:
                return main, np.stack(columns, axis=1)
            gain, weight = rest[0], terms.weight
            if self.risk:
                later = np.exp(float(p[1]) - alpha * terms.log_before)
                weight = weight * (l0 + later)
            response, slopes = self.response(p, terms.log_lr, terms.log_gap, terms.steps, jacobian)
            if not jacobian:
                response *= weight
                return main - gain * terms.sum(response[None])[0], np.empty((0, 0))
            parts = np.empty((len(slopes) + (4 if self.risk else 1), len(weight)), dtype=weight.dtype)
            np.multiply(weight, response, out=parts[0])
            for part, slope in zip(parts[1:], slopes, strict=False):
                np.multiply(weight, slope, out=part)
            if self.risk:
                np.multiply(terms.weight, response, out=parts[-3])
                np.multiply(parts[-3], later, out=parts[-2])
                np.multiply(parts[-2], terms.log_before, out=parts[-1])
            sums = -gain * terms.sum(parts)
            if self.risk:
                columns[0] += l0 * sums[-3]
                columns[1] += sums[-2]
                columns[2] -= alpha * sums[-1]
            return main + sums[0], np.column_stack((*columns, *sums[: 1 + len(slopes)]))

    @np.errstate(over="ignore", invalid="ignore", divide="ignore")
    def response(
        self, p: Array, log_lr: Array, log_gap: Array, steps: Array, jacobian: bool
    ) -> tuple[Array, list[Array]]:
        """Return G of each change, and its derivatives by the log of each parameter after B.

        For the multi-power laws the first of these is also the derivative by `log_gap`. An LR of 0 with a gap of 0, as
        at the end of a decay to 0, has earned nothing.
        """
        if self.name == "momentum":
            decay = -float(np.exp(p[4])) * steps
            rest = np.exp(decay)
            return 1 - rest, [-decay * rest] if jacobian else []
        power, *exponents = np.exp(p[5:]).tolist()
        # In place: this is where a fit spends its time.
        log_x = log_gap + float(p[4])
        for exponent in exponents:
            log_x -= exponent * log_lr
        base = np.exp(log_x)
        if unusual := not np.isfinite(base.max(initial=0.0)):
            base[np.isnan(base)] = 0.0
        base += 1
        log_base = np.log(base)
        if unusual:
            too_large = np.isinf(base)
            log_base[too_large] = log_x[too_large]
        rest = log_base * -power
        np.exp(rest, out=rest)
        if not jacobian:
            return np.subtract(1, rest, out=rest), []
        by_log_x = np.subtract(1, np.divide(1, base, out=base), out=base)
        by_log_x *= rest
        by_log_x *= power
        log_base *= rest
        log_base *= power
        slopes = [by_log_x, log_base, *(log_lr * (-exponent * by_log_x) for exponent in exponents)]
        # An infinite x, or an LR of 0, times nothing left is nothing.
        for slope in slopes[1:]:
            slope[np.isnan(slope)] = 0.0
        return np.subtract(1, rest, out=rest), slopes


MPL_PARAMETERS = ("L0", "A", "alpha", "B", "C", "beta", "gamma")
LAWS = {
    law.name: law
    for law in (
        Law("mpl", MPL_PARAMETERS, shape={"beta": 0.6, "gamma": 0.5}),
        Law("mpl_risk", MPL_PARAMETERS, risk=True, shape={"beta": 0.6, "gamma": 0.5}),
        Law("mpl_gamma0", MPL_PARAMETERS[:6], shape={"beta": 0.6}),
        Law("momentum", ("L0", "A", "alpha", "B", "rate")),
        Law("power", ("L0", "A", "alpha")),
    )
}


def law_of(name: str) -> Law:
    if name not in LAWS:
        raise MplError(f"unknown law {name!r}: allowed are {', '.join(LAWS)}")
    return LAWS[name]


def to_logs(law: Law, values: Mapping[str, float] | Sequence[float]) -> Array:
    """Return the logs of parameters that are given by name or in the law's order; raise MplError where none can be."""
    if isinstance(values, Mapping):
        if set(values) != set(law.parameters):
            raise MplError(f"law {law.name} has the parameters {', '.join(law.parameters)}: found {', '.join(values)}")
        values = [values[name] for name in law.parameters]
    array = np.array(values, dtype=np.float64)
    if array.shape != (len(law.parameters),) or not (np.isfinite(array).all() and (array > 0).all()):
        raise MplError(f"law {law.name} needs {len(law.parameters)} finite positive parameters: found {array.tolist()}")
    return np.log(array)
