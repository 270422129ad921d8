"""Climate signals to the contents of a NetCDF file; the attributes they carry are described in `climate`."""

from collections.abc import Sequence, Set
from dataclasses import dataclass

import numpy as np
from xarray import Variable

from inrcodec.errors import SignalError
from inrcodec.signals.cf_fields import Field, field_of
from inrcodec.signals.cf_grid import (
    EAST,
    NORTH,
    REFERENCES,
    Direction,
    angles,
    coordinate_of,
    data_grids,
    is_monotonic,
    numbers_of,
    resolved,
)
from inrcodec.signals.cf_packing import PACKING_ATTRIBUTES
from inrcodec.signals.lazy import AnySignal
from inrcodec.signals.netcdf import Contents, Dimension, group_of, parse_attributes, parse_variable, repeated_dimensions
from inrcodec.signals.signal import Axis

# Attributes about the stored numbers of a coordinate, wrong for others.
STORAGE_ATTRIBUTES = frozenset({*PACKING_ATTRIBUTES, "actual_range"})
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


@repeated_dimensions()
def contents_of(signals: Sequence[AnySignal]) -> tuple[Contents, dict[str, Field]]:
    """Return the contents of the file that these signals are to become, and its fields, whose numbers are left out.

    Raises: SignalError if the signals contradict each other; LookupError, TypeError, ValueError or AttributeError if
        their attributes are malformed.
    """
    fields = {field.name: field for field in map(field_of, signals) if "carrier" not in field.signal.attributes}
    if len(fields) < len(signals) - ("carrier" in signals[0].attributes):
        raise SignalError(f"two signals of the same name: {[signal.name for signal in signals]}; rename one")
    file = signals[0].attributes.get("file", {"dimensions": [], "attributes": {}, "variables": []})
    supporting = {plain["name"]: parse_variable(plain) for plain in file["variables"] if "dimensions" in plain}
    resampled = _resampled(list(fields.values()), supporting)
    coordinates = dict(filter(None, (each.coordinate for each in resampled.values())))
    attributes = {"": file["attributes"]} | file.get("groups", {})
    plain = {place: parse_attributes(each) for place, each in attributes.items()}
    data = {name: _data_variable(field, resampled.keys()) for name, field in fields.items()}
    on_grids = data_grids(Contents({}, plain, supporting | data)) if resampled else {}
    kept = {
        name: _nearest(variable, resampled)
        for name, variable in supporting.items()
        if name in on_grids or not resampled.keys() & set(variable.dims)
    }
    available = kept | coordinates | data
    order = [plain["name"] for plain in file["variables"]] + list(coordinates) + list(data)
    dropped = supporting.keys() - available.keys()
    variables = {
        name: _without_references(name, available[name], dropped) for name in dict.fromkeys(order) if name in available
    }
    dimensions = {name: Dimension(size, unlimited) for name, size, unlimited in file["dimensions"]}
    dimensions = _fitted(dimensions, variables, resampled.keys())
    for place in sorted({group_of(name) for name in (*dimensions, *variables)}):
        plain.setdefault(place, {})
    return Contents(dimensions, plain, variables), fields


def _data_variable(field: Field, resampled: Set[str]) -> Variable:
    """Return a variable without its numbers, which are written later."""
    wrong = GRIB_GRID_ATTRIBUTES if resampled & set(field.dimensions) else frozenset()
    attributes = {key: value for key, value in field.attributes.items() if key not in wrong}
    data = np.broadcast_to(np.zeros((), field.packing.stored), field.stored_shape)
    chunks = field.chunks()
    return Variable(field.dimensions, data, attributes, {"chunks": chunks} if chunks else {})


@dataclass(frozen=True, eq=False)
class Resampled:
    """A horizontal dimension that is not as in the file: its axes, and its new coordinate variable by name."""

    before: Axis
    after: Axis
    coordinate: tuple[str, Variable] | None


def _resampled(fields: list[Field], supporting: dict[str, Variable]) -> dict[str, Resampled]:
    seen: dict[str, Axis] = {}
    resampled: dict[str, Resampled] = {}
    for field in fields:
        for dimension, direction, axis in zip((field.y, field.x), (NORTH, EAST), field.signal.axes[1:], strict=True):
            if not _same_axis(seen.setdefault(dimension, axis), axis):
                raise SignalError(
                    f"signal {field.name!r} has {axis.size} points along {dimension!r}, another one has "
                    f"{seen[dimension].size} or others; decode all variables of a file at one resolution"
                )
            size = field.shape[field.dimensions.index(dimension)]
            before = Axis(size, axis.kind, points=angles(dimension, direction, supporting))
            unknown = before.points is None and axis.points is not None
            if unknown or not _same_axis(before, axis):
                coordinate = _new_coordinate(dimension, direction, axis, supporting)
                resampled[dimension] = Resampled(before, axis, coordinate)
    return resampled


def _nearest(variable: Variable, resampled: dict[str, Resampled]) -> Variable:
    """Return a variable at the new points, with the nearest of its numbers at each."""
    data = variable.values
    for place, dimension in enumerate(variable.dims):
        if dimension in resampled:
            each = resampled[str(dimension)]
            index = np.rint(each.before.positions(each.after)).astype(np.int64)
            size = each.before.size
            data = data.take(index % size if each.before.kind == "periodic" else index.clip(0, size - 1), axis=place)
    return Variable(variable.dims, data, variable.attrs, variable.encoding)


def _same_axis(one: Axis, other: Axis) -> bool:
    """Say whether two axes are as long and, where both have points, equal to a thousandth of the smallest step."""
    if one.size != other.size or one.points is None or other.points is None:
        return one.size == other.size
    tolerance = 1e-3 * np.abs(np.diff(one.points)).min(initial=1.0)
    return bool(np.abs(one.points - other.points).max() <= tolerance)


def _new_coordinate(
    dimension: str, direction: Direction, axis: Axis, supporting: dict[str, Variable]
) -> tuple[str, Variable] | None:
    """Return the name of a resampled dimension's coordinate and the variable with its new points.

    The points are the axis's, else the stored coordinate interpolated. Returns None if there is neither.
    """
    points = axis.points
    old_name = coordinate_of(dimension, direction, supporting)
    if old_name is None:
        if points is None:
            return None
        name, unit = ("latitude", "degrees_north") if direction is NORTH else ("longitude", "degrees_east")
        attributes = {"standard_name": name, "long_name": name, "units": unit}
        return dimension, Variable([dimension], points, attributes)
    old = supporting[old_name]
    if points is None:
        before = numbers_of(old)
        if before is None or not is_monotonic(before):
            return None
        points = Axis(before.size, "node", points=before).resampled(axis.size).points
    if old.dtype.kind == "f" and not {"scale_factor", "add_offset"} & old.attrs.keys():
        wrong, dtype = frozenset({"actual_range"}), old.dtype
    else:
        wrong, dtype = STORAGE_ATTRIBUTES, np.dtype(np.float64)
    attributes = {key: value for key, value in old.attrs.items() if key not in wrong}
    return old_name, Variable([dimension], np.asarray(points, dtype), attributes)


def _without_references(owner: str, variable: Variable, dropped: Set[str]) -> Variable:
    """Return the variable without references to dropped variables: lists lose these names, other attributes go."""
    if not dropped:
        return variable
    attributes = dict(variable.attrs)
    for key in (*REFERENCES, "ancillary_variables", "formula_terms"):
        names = str(attributes.get(key, "")).split()
        gone = {name for name in names if resolved(group_of(owner), name, dropped) in dropped}
        if not gone:
            continue
        left = [name for name in names if name not in gone] if key in LISTS else []
        attributes[key] = " ".join(left)
        if not left:
            del attributes[key]
    return Variable(variable.dims, variable.values, attributes, variable.encoding)


def _fitted(
    dimensions: dict[str, Dimension], variables: dict[str, Variable], resampled: Set[str]
) -> dict[str, Dimension]:
    """Return the file's dimensions with the sizes they have now, and new dimensions of its variables."""
    sizes = {name: dimension.size for name, dimension in dimensions.items() if name not in resampled}
    for variable_name, variable in variables.items():
        for name, size in variable.sizes.items():
            if sizes.setdefault(str(name), size) != size:
                raise SignalError(
                    f"dimension {name!r} has {sizes[str(name)]} points, {size} in variable {variable_name!r}; "
                    "decode all variables of a file at one resolution"
                )
    unlimited = {name for name, dimension in dimensions.items() if dimension.unlimited}
    order = [name for name in dimensions if name in sizes]
    return {name: Dimension(sizes[name], name in unlimited) for name in dict.fromkeys([*order, *sizes])}
