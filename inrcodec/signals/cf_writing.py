"""Climate signals to the contents of a NetCDF file; the attributes they carry are described in `climate`."""

from collections.abc import Set
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from inrcodec.errors import SignalError
from inrcodec.signals import netcdf
from inrcodec.signals.cf_grid import (
    EAST,
    NORTH,
    REFERENCES,
    Direction,
    angles,
    coordinate_of,
    is_monotonic,
    numbers_of,
)
from inrcodec.signals.cf_packing import Packing, pack, packing_of
from inrcodec.signals.netcdf import Contents, Dimension, Variable
from inrcodec.signals.signal import Axis, Signal

# Attributes about the stored numbers of a coordinate, wrong for others.
STORAGE_ATTRIBUTES = frozenset(
    {
        "_FillValue",
        "missing_value",
        "scale_factor",
        "add_offset",
        "valid_range",
        "valid_min",
        "valid_max",
        "actual_range",
        "_Unsigned",
    }
)
# Attributes about the grid, wrong for another.
GRIB_GRID_ATTRIBUTES = frozenset(
    f"GRIB_{name}"
    for name in (
        "Nx",
        "Ny",
        "numberOfPoints",
        "iDirectionIncrementInDegrees",
        "jDirectionIncrementInDegrees",
        "latitudeOfFirstGridPointInDegrees",
        "latitudeOfLastGridPointInDegrees",
        "longitudeOfFirstGridPointInDegrees",
        "longitudeOfLastGridPointInDegrees",
    )
)

# References that stay of use when some of the variables they list are gone.
LISTS = ("coordinates", "ancillary_variables")


@dataclass(frozen=True, eq=False)
class _Field:
    """A signal and its variable: dimensions in the file's order, shape as it was read."""

    signal: Signal
    name: str
    dimensions: tuple[str, ...]
    shape: tuple[int, ...]
    y: str
    x: str
    dtype: np.dtype
    attributes: dict[str, Any]


def contents_of(signals: list[Signal]) -> Contents:
    """Raises: SignalError if the signals contradict each other; LookupError, TypeError, ValueError or
    AttributeError if their attributes are malformed."""
    fields = {field.name: field for field in map(_field_of, signals)}
    if len(fields) < len(signals):
        raise SignalError(f"two signals of the same name: {[signal.name for signal in signals]}; rename one")
    file = signals[0].attributes.get("file", {"dimensions": [], "attributes": {}, "variables": []})
    stored = [netcdf.parse_variable(plain) for plain in file["variables"] if "dimensions" in plain]
    supporting = {variable.name: variable for variable in stored}
    resampled = _resampled(list(fields.values()), supporting)
    coordinates = {variable.name: variable for variable in resampled.values() if variable is not None}
    kept = {name: variable for name, variable in supporting.items() if not resampled.keys() & set(variable.dimensions)}
    data = {name: _data_variable(field, resampled.keys()) for name, field in fields.items()}
    available = kept | coordinates | data
    order = [plain["name"] for plain in file["variables"]] + list(coordinates) + list(data)
    dropped = supporting.keys() - available.keys()
    variables = tuple(
        _without_references(available[name], dropped) for name in dict.fromkeys(order) if name in available
    )
    dimensions = tuple(Dimension(*dimension) for dimension in file["dimensions"])
    attributes = netcdf.parse_attributes(file["attributes"])
    return Contents(_fitted(dimensions, variables, resampled.keys()), attributes, variables)


def packing_of_signal(signal: Signal) -> Packing:
    """How the values of a signal are stored. Raises: SignalError, and as `contents_of`."""
    return _packing_of_field(_field_of(signal))


def _packing_of_field(field: _Field) -> Packing:
    return packing_of(f"variable {field.name!r}", field.dtype, field.attributes)


def _field_of(signal: Signal) -> _Field:
    if len(signal.axes) != 3 or signal.channels != 1:
        raise SignalError(
            f"signal {signal.name!r} of shape {signal.values.shape} is no climate field [slices, H, W, 1]"
        )
    attributes = signal.attributes
    y, x = attributes.get("horizontal", ("latitude", "longitude") if signal.sphere else ("y", "x"))
    slices, *horizontal = signal.shape
    leading = {"slice": slices} if slices > 1 else {}
    return _Field(
        signal=signal,
        name=signal.name or "data",
        dimensions=tuple(attributes.get("dimensions", [*leading, y, x])),
        shape=tuple(attributes.get("shape", [*leading.values(), *horizontal])),
        y=y,
        x=x,
        dtype=np.dtype(attributes.get("dtype", signal.values.dtype)).newbyteorder("="),
        attributes=netcdf.parse_attributes(attributes.get("attributes", {})),
    )


def _data_variable(field: _Field, resampled: Set[str]) -> Variable:
    values, missing = field.signal.values[..., 0], field.signal.missing
    places = [field.dimensions.index(field.y), field.dimensions.index(field.x)]
    leading = [size for place, size in enumerate(field.shape) if place not in places]
    if np.prod(leading, dtype=np.int64) != values.shape[0]:
        raise SignalError(f"signal {field.name!r} has {values.shape[0]} slices, but its file had {leading}")
    raw = pack(f"variable {field.name!r}", values, missing, _packing_of_field(field))
    data = np.moveaxis(raw.reshape(*leading, *values.shape[1:]), [-2, -1], places)
    wrong = GRIB_GRID_ATTRIBUTES if resampled & set(field.dimensions) else frozenset()
    attributes = {key: value for key, value in field.attributes.items() if key not in wrong}
    return Variable(field.name, field.dimensions, attributes, data)


def _resampled(fields: list[_Field], supporting: dict[str, Variable]) -> dict[str, Variable | None]:
    """The horizontal dimensions that are not as in the file, each with its new coordinate variable."""
    seen: dict[str, Axis] = {}
    resampled: dict[str, Variable | None] = {}
    for field in fields:
        for dimension, direction, axis in zip((field.y, field.x), (NORTH, EAST), field.signal.axes[1:], strict=True):
            if not _same_axis(seen.setdefault(dimension, axis), axis):
                raise SignalError(
                    f"signal {field.name!r} has {axis.size} points along {dimension!r}, another one has "
                    f"{seen[dimension].size} or others; decode all variables of a file at one resolution"
                )
            coordinate = coordinate_of(dimension, direction, supporting)
            size = field.shape[field.dimensions.index(dimension)]
            before = Axis(size, "node", points=angles(coordinate, direction))
            unknown = before.points is None and axis.points is not None
            if unknown or not _same_axis(before, axis):
                resampled[dimension] = _new_coordinate(dimension, direction, axis, coordinate)
    return resampled


def _same_axis(one: Axis, other: Axis) -> bool:
    """As long and, where both have points, equal to a thousandth of the smallest step."""
    if one.size != other.size or one.points is None or other.points is None:
        return one.size == other.size
    tolerance = 1e-3 * np.abs(np.diff(one.points)).min(initial=1.0)
    return bool(np.abs(one.points - other.points).max() <= tolerance)


def _new_coordinate(dimension: str, direction: Direction, axis: Axis, coordinate: Variable | None) -> Variable | None:
    """The coordinate variable of a resampled dimension: the axis's points, else the stored coordinate
    interpolated; None if there is neither."""
    points = axis.points
    if coordinate is None:
        if points is None:
            return None
        name, unit = ("latitude", "degrees_north") if direction is NORTH else ("longitude", "degrees_east")
        attributes = {"standard_name": name, "long_name": name, "units": unit}
        return Variable(dimension, (dimension,), attributes, points)
    if points is None:
        before = numbers_of(coordinate)
        if before is None or not is_monotonic(before):
            return None
        points = Axis(before.size, "node", points=before).resampled(axis.size).points
    if coordinate.data.dtype.kind == "f" and not {"scale_factor", "add_offset"} & coordinate.attributes.keys():
        wrong, dtype = frozenset({"actual_range"}), coordinate.data.dtype
    else:
        wrong, dtype = STORAGE_ATTRIBUTES, np.dtype(np.float64)
    attributes = {key: value for key, value in coordinate.attributes.items() if key not in wrong}
    return Variable(coordinate.name, (dimension,), attributes, np.asarray(points, dtype))


def _without_references(variable: Variable, dropped: Set[str]) -> Variable:
    """Attributes that name variables which are left out go too; of lists, only those names."""
    if not dropped:
        return variable
    attributes = dict(variable.attributes)
    for key in (*REFERENCES, "ancillary_variables", "formula_terms"):
        names = str(attributes.get(key, "")).split()
        if not dropped & set(names):
            continue
        left = [name for name in names if name not in dropped] if key in LISTS else []
        attributes[key] = " ".join(left)
        if not left:
            del attributes[key]
    return replace(variable, attributes=attributes)


def _fitted(
    dimensions: tuple[Dimension, ...], variables: tuple[Variable, ...], resampled: Set[str]
) -> tuple[Dimension, ...]:
    """The file's dimensions with the sizes they have now, and those it did not have."""
    sizes = {dimension.name: dimension.size for dimension in dimensions if dimension.name not in resampled}
    for variable in variables:
        for name, size in zip(variable.dimensions, variable.data.shape, strict=True):
            if sizes.setdefault(name, size) != size:
                raise SignalError(
                    f"dimension {name!r} has {sizes[name]} points, {size} in variable {variable.name!r}; "
                    "decode all variables of a file at one resolution"
                )
    fitted = [replace(each, size=sizes.pop(each.name)) for each in dimensions if each.name in sizes]
    return (*fitted, *(Dimension(name, size) for name, size in sizes.items()))
