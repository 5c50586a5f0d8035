"""The policies: pure functions of one trial's objectives and of its siblings'."""

from collections.abc import Sequence

from katib_callbacks.settings.early_stopping import Policy


def median_stops(policy: Policy, *, best: float, reported: int, trials: int, mean: float) -> bool:
    """Return whether medianstop ends a trial: its best objective so far is worse than its siblings' mean.

    As Katib's service and metrics collector have it (pkg/earlystopping/v1beta1/medianstop/service.py and
    cmd/metricscollector/v1beta1/file-metricscollector/main.go): what they call the median is the mean, over trials that
    succeeded, of the mean of each one's first ``start_step`` objectives. The idea is that of Golovin et al., Google
    Vizier, KDD 2017, section 3.1. Katib compares once, after ``start_step`` objectives; here it is done after each one
    from then on, since siblings go on succeeding. ``reported`` objectives make up ``best``, ``trials`` siblings
    ``mean``.
    """
    if trials < policy.options["min_trials_required"] or reported < policy.options["start_step"]:
        return False
    return best < mean if policy.is_maximized else best > mean


def rung_of(policy: Policy, step: int) -> int | None:
    """Return the highest rung of asha that a trial has reached with this step; None below the first one.

    Rungs are ``min_resource * reduction_factor ** k``, below ``max_resource`` where there is one.
    """
    end = min(step, policy.options.get("max_resource", step + 1) - 1)
    rung, reached = policy.options["min_resource"], None
    while rung <= end:
        rung, reached = rung * policy.options["reduction_factor"], rung
    return reached


def asha_places(policy: Policy, trials: int) -> int:
    """Return how many of the trials that have come to a rung may go on."""
    return max(1, trials // policy.options["reduction_factor"])


def asha_stops(policy: Policy, value: float, values: Sequence[float]) -> bool:
    """Return whether asha ends a trial at a rung: it is not among the best ``1 / reduction_factor`` that came there.

    Asynchronous successive halving, Li et al., A System for Massively Parallel Hyperparameter Tuning, MLSys 2020
    (arXiv:1810.05934), in the form that stops trials in place of pausing them. As in Optuna's SuccessiveHalvingPruner
    the best one goes on where there are fewer than ``reduction_factor``. ``values`` are those of all trials that have
    come to the rung, its own among them.
    """
    ranked = sorted(values, reverse=policy.is_maximized)
    last = ranked[asha_places(policy, len(ranked)) - 1]
    return value < last if policy.is_maximized else value > last
