"""`nfnet-eqx verify`: two checkpoints compared, tensor by tensor and stage by stage."""

import json as json_format
import math
import sys
from typing import Annotated, Any, NamedTuple

import numpy as np
import tyro

from nfnet_eqx._errors import InputError
from nfnet_eqx.cli._text import printable
from nfnet_eqx.convert import Difference, compare, noise, run, run_timm
from nfnet_eqx.models import Network, named_parameters
from nfnet_eqx.zoo import from_pretrained

# Of the tensors that differ, the table shows this many.
_WORST = 10


class Side(NamedTuple):
    """One of the two checkpoints."""

    source: str
    architecture: str
    model: Network


class Comparison(NamedTuple):
    """Everything that was compared; `timm` is a reason where there is nothing to compare with."""

    a: Side
    b: Side
    settings: dict[str, tuple[Any, Any]]
    tensors: list[Difference]
    stages: list[Difference]
    timm: list[Difference] | str
    tolerance: float


def verify(
    a: Annotated[str, tyro.conf.Positional],
    b: Annotated[str, tyro.conf.Positional],
    *,
    tolerance: float = 5e-6,
    json: bool = False,
) -> None:
    """Compare two checkpoints of the same network: the weights, and what the networks compute.

    Two tables: the tensors that differ, the worst first, and the five feature maps and the logits of both networks on
    the same noise. Where timm is installed, also those of timm's own forward pass on the weights of A. All differences
    are on the scale of what differs: the largest difference over the largest value.

    A and B agree if nothing differs by more than the tolerance. Between different numerics (timm's and DeepMind's) only
    the outputs count, since the same function takes different tensors. timm counts where A has its numerics.

    Exit status: 0 if they agree; 2 if they differ (the tables are printed, one line on stderr says in what) or cannot
    be compared (nothing is printed).

    Examples:
        nfnet-eqx verify timm/dm_nfnet_f0.dm_in1k path/to/converted
        nfnet-eqx verify F0_haiku.npz path/to/converted --tolerance 1e-3

    Args:
        a: a bundled checkpoint, a folder of timm or nfnet_eqx, a Hub id, or one of DeepMind's .npz files.
        b: another one.
        tolerance: the largest difference, on the scale of what differs, that still counts as agreement.
        json: print JSON; it lists all tensors that differ.

    Raises:
        InputError: they differ, one of them cannot be read, or they are not the same network.
    """
    if not 0 <= tolerance < math.inf:
        raise InputError(f"--tolerance {tolerance}: must be a number from 0 on")
    found = _compare(_open(a), _open(b), tolerance)
    faults = _faults(found)
    print(json_format.dumps(_as_json(found, faults), indent=2) if json else "\n".join(_as_table(found)))
    if faults:
        raise InputError(f"{a} and {b} differ: {'; '.join(faults)}")


def _open(source: str) -> Side:
    _say(f"reading {source}")
    ckpt = from_pretrained(source)
    return Side(str(ckpt.source), ckpt.architecture, ckpt.model)


def _compare(a: Side, b: Side, tolerance: float) -> Comparison:
    settings_a, settings_b = a.model.config.to_dict(), b.model.config.to_dict()
    settings = {key: (value, settings_b[key]) for key, value in settings_a.items() if value != settings_b[key]}
    try:
        tensors = compare(named_parameters(a.model), named_parameters(b.model))
    except InputError as error:
        names = f"{a.source} is {a.architecture} and {b.source} is {b.architecture}"
        raise InputError(f"{names}: {error}; give two checkpoints of one architecture and as many classes") from None
    _say("running both networks")
    picture = noise(a.model)
    stages = run(a.model, picture)
    return Comparison(
        a, b, settings, tensors, compare(stages, run(b.model, picture)), _timm(a, picture, stages), tolerance
    )


def _timm(side: Side, picture: np.ndarray, stages: dict[str, np.ndarray]) -> list[Difference] | str:
    """The differences to timm, or why there are none."""
    _say("running timm, where it is installed")
    try:
        return compare(stages, run_timm(side.architecture, side.model, picture))
    except InputError as error:
        return str(error)


def _faults(found: Comparison) -> list[str]:
    """In what the two differ by more than the tolerance."""
    faults = []
    if found.a.model.config.numerics == found.b.model.config.numerics:
        worst = sorted((t for t in found.tensors if not t.relative <= found.tolerance), key=_badness)
        if worst:
            faults.append(f"{len(worst)} of {len(found.tensors)} tensors, {_worst(worst)}")
    outputs = [stage for stage in found.stages if not stage.relative <= found.tolerance]
    if outputs:
        faults.append(f"{len(outputs)} of {len(found.stages)} outputs, {_worst(sorted(outputs, key=_badness))}")
    if not isinstance(found.timm, str) and found.a.model.config.numerics == "timm":
        outputs = [stage for stage in found.timm if not stage.relative <= found.tolerance]
        if outputs:
            faults.append(f"A from timm in {len(outputs)} outputs, {_worst(sorted(outputs, key=_badness))}")
    return faults


def _badness(difference: Difference) -> tuple[bool, float]:
    """Sorts the worst first, NaN before anything."""
    return not math.isnan(difference.relative), -difference.relative


def _worst(differences: list[Difference]) -> str:
    return f"the worst, {differences[0].name}, by {differences[0].relative:.1e}"


def _as_json(found: Comparison, faults: list[str]) -> dict[str, Any]:
    def side(which: Side) -> dict[str, Any]:
        return {
            "source": which.source,
            "architecture": which.architecture,
            "numerics": which.model.config.numerics,
        }

    def listed(differences: list[Difference]) -> list[dict[str, Any]]:
        rows = [{**d._asdict(), "relative": d.relative} for d in differences]
        # JSON has no NaN.
        return [{k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in r.items()} for r in rows]

    return {
        "a": side(found.a),
        "b": side(found.b),
        "agree": not faults,
        "faults": faults,
        "tolerance": found.tolerance,
        "settings_that_differ": found.settings,
        "tensors": len(found.tensors),
        "tensors_equal_to_the_bit": sum(t.same_bits for t in found.tensors),
        "tensors_that_differ": listed([t for t in found.tensors if not t.same_bits]),
        "outputs": listed(found.stages),
        "timm": found.timm if isinstance(found.timm, str) else listed(found.timm),
    }


def _as_table(found: Comparison) -> list[str]:
    lines = []
    for letter, side in zip("AB", (found.a, found.b), strict=True):
        lines.append(f"{letter}  {printable(side.source)}: {side.architecture}, numerics={side.model.config.numerics}")
    for name, (value_a, value_b) in found.settings.items():
        lines.append(f"{name} is {value_a!r} in A and {value_b!r} in B")
    lines += ["", *_tensor_lines(found.tensors), "", *_stage_lines(found)]
    return lines


def _tensor_lines(tensors: list[Difference]) -> list[str]:
    different = sorted((t for t in tensors if not t.same_bits), key=_badness)
    if not different:
        return [f"weights: all {len(tensors)} tensors are equal to the bit"]
    shown = different[:_WORST]
    width = max(len(t.name) for t in shown)
    lines = [f"weights: {len(tensors) - len(different)} of {len(tensors)} tensors are equal to the bit"]
    lines.append(f"{'tensor that differs':{width}}  {'shape':>20}  {'max abs':>8}  {'relative':>8}")
    for t in shown:
        lines.append(f"{t.name:{width}}  {_shape(t):>20}  {_number(t.max_abs):>8}  {_number(t.relative):>8}")
    if len(different) > len(shown):
        lines.append(f"... and {len(different) - len(shown)} more, which differ less")
    return lines


def _stage_lines(found: Comparison) -> list[str]:
    timm = [] if isinstance(found.timm, str) else found.timm
    header = f"{'output':9}  {'shape':>16}  {'largest':>8}  {'A - B':>8}  {'relative':>8}"
    lines = [header + (f"  {'A - timm':>8}  {'relative':>8}" if timm else "")]
    for i, stage in enumerate(found.stages):
        line = f"{stage.name:9}  {_shape(stage):>16}  {_number(stage.scale):>8}"
        for difference in (stage, *timm[i : i + 1]):
            line += f"  {_number(difference.max_abs):>8}  {_number(difference.relative):>8}"
        lines.append(line)
    if not timm:
        lines.append(f"not compared with timm: {printable(str(found.timm))}")
    elif found.a.model.config.numerics != "timm":
        lines.append("timm computes another function than DeepMind's numerics: its difference does not count")
    return lines


def _shape(difference: Difference) -> str:
    return " x ".join(map(str, difference.shape)) or "scalar"


def _number(value: float) -> str:
    return "0" if value == 0 else f"{value:.2g}" if 1e-2 <= value < 1e4 else f"{value:.1e}"


def _say(what: str) -> None:
    """Progress: large networks take a while."""
    if sys.stderr.isatty():  # elsewhere an error stays the one line that it is
        print(f"{what} ...", file=sys.stderr, flush=True)
