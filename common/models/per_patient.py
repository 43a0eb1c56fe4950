"""Trained arrays of which each patient of one batch has a copy of their own: one pass gives every patient's gradient.

What is frozen sees nothing but a larger batch; where a trained array comes in, each patient's copy meets that patient's rows. The
copies are equal, so the outputs are those of the plain model, and the gradient of the sum of all losses by a patient's copy is
the gradient of that patient's loss. No layer must know of it: a copy's stand-in, `PerPatient`, says how it is computed with, and
refuses what it has no rule for.

n patients; rows are tensors whose first axis runs over equally many rows of each patient, patient after patient.
I inputs and O outputs of a map, D width.
"""

from collections.abc import Callable, Mapping
from typing import Any, Self

from torch import Tensor, nn
from torch.func import vmap
from torch.nn import functional
from torch.utils._pytree import tree_flatten, tree_unflatten


class NoPatientRuleError(Exception):
    """Something computes with patients' own arrays in a way that no rule covers."""


class PerPatient(Tensor):
    """The copies of a trained array, in its place in the model: to whoever asks, it has the array's shape, type and device.

    Three rules, and no other operation:
    - With its like, and with parameters, which all patients share: each patient's by itself; gives `PerPatient`.
    - `linear` and `layer_norm` of rows: patient i's rows with patient i's weight and bias; gives rows.
    - What `by_patient` is told to compute.

    Attributes:
        each: [n, *shape], the copies.
    """

    each: Tensor

    @classmethod
    def of(cls, each: Tensor) -> Self:
        """From copies [n, *shape], n at least 1."""
        found = each[0].detach().as_subclass(cls)
        found.each = each
        return found

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Every operation on one comes here."""
        if func in ATTRIBUTES:
            return super().__torch_function__(func, types, args, kwargs or {})  # type: ignore[no-untyped-call]  # torch has no types for it
        flat, tree = tree_flatten((args, kwargs or {}))
        if all(isinstance(value, PerPatient | nn.Parameter) for value in flat if isinstance(value, Tensor)):
            return _of_arrays(func, flat, tree)
        if func in ROWS:
            return ROWS[func](*args, **(kwargs or {}))
        raise NoPatientRuleError(f"{getattr(func, '__name__', func)} has no rule for patients' own arrays")


def by_patient(function: Callable[..., Any], values: Mapping[str, Tensor], *rows: Tensor) -> Any:
    """`function(values, *rows)`, a function that gives rows; patient i's with patient i's values, where they have their own.

    Args:
        function: computes with nothing but what it is given, under `vmap`.
        values: arrays, `PerPatient` or not.
        rows: [n r, ...] with some r each.
    """
    own = {name: value.each for name, value in values.items() if isinstance(value, PerPatient)}
    if not own:
        return function(values, *rows)
    shared = {name: value for name, value in values.items() if name not in own}
    patients = len(next(iter(own.values())))
    grouped = [row.unflatten(0, (patients, _rows_each(row, patients))) for row in rows]
    found: Any = vmap(lambda mine, *some: function({**shared, **mine}, *some))(own, *grouped)
    return found.flatten(0, 1)


def _of_arrays(func: Any, flat: list[Any], tree: Any) -> PerPatient:
    """An operation on arrays alone, for each patient."""
    places = [place for place, value in enumerate(flat) if isinstance(value, PerPatient)]

    def one(*mine: Tensor) -> Any:
        filled = dict(enumerate(flat)) | dict(zip(places, mine, strict=True))
        args, kwargs = tree_unflatten([filled[place] for place in range(len(flat))], tree)
        return func(*args, **kwargs)

    try:
        found: Tensor = vmap(one)(*(flat[place].each for place in places))
    except (RuntimeError, ValueError) as error:  # it reads values, or gives no tensor
        raise NoPatientRuleError(f"{getattr(func, '__name__', func)} has no rule for patients' own arrays") from error
    return PerPatient.of(found)


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Rows [..., I] to [..., O]."""
    if not isinstance(weight, PerPatient):
        return _affine(functional.linear(x, weight), None, bias)
    rows = _grouped(x, len(weight.each))
    found = (rows @ weight.each.mT).view(*x.shape[:-1], weight.shape[0])
    return found if bias is None else _affine(found, None, bias)


def _layer_norm(
    x: Tensor, normalized_shape: list[int], weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """Rows [..., D] to [..., D]."""
    if len(normalized_shape) != 1:
        raise NoPatientRuleError("layer_norm has a rule for its last axis alone")
    return _affine(functional.layer_norm(x, normalized_shape, None, None, eps), weight, bias)


def _affine(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """Rows [..., D] times a weight [D] plus a bias [D], each of them one for all, each patient's own, or none."""
    patients = next((len(value.each) for value in (weight, bias) if isinstance(value, PerPatient)), 1)
    rows = _grouped(x, patients)
    if weight is not None:
        rows = rows * _spread(weight, rows)
    if bias is not None:
        rows = rows + _spread(bias, rows)
    return rows.view(x.shape)


def _spread(value: Tensor, rows: Tensor) -> Tensor:
    """A vector as it meets grouped rows: [n, 1, D], or [D]."""
    return (value.each.unsqueeze(1) if isinstance(value, PerPatient) else value).to(rows.dtype)


def _grouped(x: Tensor, patients: int) -> Tensor:
    """Rows [n r, ..., D] as [n, all of a patient's, D]."""
    _rows_each(x, patients)
    return x.reshape(patients, x.shape[:-1].numel() // patients, x.shape[-1])


def _rows_each(x: Tensor, patients: int) -> int:
    """r of rows."""
    if isinstance(x, PerPatient | nn.Parameter) or x.ndim < 2 or len(x) % patients:
        raise NoPatientRuleError(f"expected equally many rows of {patients} patients, got {tuple(x.shape)}")
    return len(x) // patients


ATTRIBUTES = {getattr(Tensor, name).__get__ for name in ("shape", "dtype", "device", "ndim", "is_cuda", "requires_grad")} | {
    Tensor.size,
    Tensor.dim,
    Tensor.__len__,
    Tensor.is_floating_point,
}
ROWS: dict[Any, Callable[..., Tensor]] = {functional.linear: _linear, functional.layer_norm: _layer_norm}
