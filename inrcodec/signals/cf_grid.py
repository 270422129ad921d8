"""Which variables of a NetCDF file lie on a horizontal grid, by the CF conventions and the names in use."""

from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from xarray import Variable

from inrcodec.errors import SignalError
from inrcodec.signals.cf_packing import packing_of, unpack
from inrcodec.signals.netcdf import Contents, group_of, qualified
from inrcodec.signals.signal import Axis, AxisKind


@dataclass(frozen=True)
class Direction:
    """How a horizontal direction is recognized.

    units, standard_names, angle_names: of coordinates that are true angles, in degrees.
    names: of dimensions. projected, letter: `standard_name` and `axis` of the other coordinates.
    """

    units: frozenset[str]
    standard_names: frozenset[str]
    angle_names: frozenset[str]
    names: frozenset[str]
    projected: frozenset[str]
    letter: str


NORTH = Direction(
    units=frozenset(["degrees_north", "degree_north", "degree_n", "degrees_n", "degreen", "degreesn"]),
    standard_names=frozenset({"latitude", "grid_latitude"}),
    angle_names=frozenset({"latitude", "lat", "rlat", "grid_latitude"}),
    names=frozenset(["latitude", "lat", "rlat", "grid_latitude", "nlat", "y", "yc", "ny", "south_north"]),
    projected=frozenset({"projection_y_coordinate", "projection_y_angular_coordinate"}),
    letter="Y",
)
EAST = Direction(
    units=frozenset(["degrees_east", "degree_east", "degree_e", "degrees_e", "degreee", "degreese"]),
    standard_names=frozenset({"longitude", "grid_longitude"}),
    angle_names=frozenset({"longitude", "lon", "rlon", "grid_longitude"}),
    names=frozenset(["longitude", "lon", "rlon", "grid_longitude", "nlon", "x", "xc", "nx", "west_east"]),
    projected=frozenset({"projection_x_coordinate", "projection_x_angular_coordinate"}),
    letter="X",
)

ROTATED = frozenset({"rlat", "rlon", "grid_latitude", "grid_longitude"})
"""Names of coordinates of rotated grids."""

# Attributes that name variables which describe others, and so are no data themselves.
REFERENCES = ("bounds", "climatology", "coordinates", "grid_mapping", "cell_measures")


@dataclass(frozen=True, eq=False)
class Grid:
    """The horizontal grid of a variable.

    y, x: names of its dimensions. axes: latitude and longitude, with points in degrees if `sphere`.
    """

    y: str
    x: str
    axes: tuple[Axis, Axis]
    sphere: bool


def data_grids(contents: Contents) -> dict[str, Grid]:
    """Return the grids of all variables with numbers on a horizontal grid, by their names, in file order.

    Left out are coordinates, bounds, cell measures and whatever else describes another variable.
    """
    variables = contents.variables
    supporting = _supporting_names(contents)
    grids = {}
    for name, variable in variables.items():
        if name in supporting or variable.dtype.kind not in "iuf" or not variable.size:
            continue
        grid = _grid_of(variable, variables)
        if grid is not None:
            grids[name] = grid
    return grids


def _supporting_names(contents: Contents) -> set[str]:
    variables = contents.variables
    names = {
        resolved(group, name, variables)
        for group, attributes in contents.attributes.items()
        for name in reference_names(attributes)
    }
    for name, variable in variables.items():
        names.update(resolved(group_of(name), each, variables) for each in reference_names(variable.attrs))
        coordinate = _is_angle(name, variable, NORTH) or _is_angle(name, variable, EAST)
        if coordinate or variable.dims == (name,):
            names.add(name)
    return names


def reference_names(attributes: dict[str, Any]) -> list[str]:
    """Return the names of the variables that these attributes refer to."""
    return [name for key in REFERENCES for name in str(attributes.get(key, "")).split() if name[-1] != ":"]


def resolved(group: str, name: str, variables: Container[str]) -> str:
    """Return the variable that a name means in a group: the group's own, or that of the nearest group around."""
    while group and qualified(group, name) not in variables:
        group = group_of(group)
    return qualified(group, name)


def _text(variable: Variable, key: str) -> str:
    value = variable.attrs.get(key, "")
    return value.strip().lower() if isinstance(value, str) else ""


def _is_angle(name: str, variable: Variable, direction: Direction) -> bool:
    units, standard_name = _text(variable, "units"), _text(variable, "standard_name")
    if units in direction.units:
        return True
    if units not in ("", "degrees", "degree"):
        return False
    if standard_name:
        return standard_name in direction.standard_names
    return name.split("/")[-1].lower() in direction.angle_names


def is_rotated(name: str, coordinate: Variable) -> bool:
    """Say whether a coordinate of angles is one of a rotated grid, no true latitude or longitude."""
    stated = _text(coordinate, "standard_name")
    return stated.startswith("grid_") or (not stated and name.split("/")[-1].lower() in ROTATED)


def coordinate_of(dimension: str, direction: Direction, variables: Mapping[str, Variable]) -> str | None:
    """Return the name of a dimension's 1-D coordinate: the variable of the same name, or else one of angles."""
    if dimension in variables and variables[dimension].dims == (dimension,):
        return dimension
    along = [name for name, variable in variables.items() if variable.dims == (dimension,)]
    return next((name for name in along if _is_angle(name, variables[name], direction)), None)


def _runs(dimension: str, direction: Direction, variables: Mapping[str, Variable]) -> bool:
    name = coordinate_of(dimension, direction, variables)
    if name is not None:
        coordinate = variables[name]
        if _is_angle(name, coordinate, direction) or _text(coordinate, "standard_name") in direction.projected:
            return True
        if _text(coordinate, "axis").upper() == direction.letter:
            return True
    return dimension.split("/")[-1].lower() in direction.names


def _grid_of(variable: Variable, variables: Mapping[str, Variable]) -> Grid | None:
    dimensions = [str(dimension) for dimension in variable.dims]
    ys = [dimension for dimension in dimensions if _runs(dimension, NORTH, variables)]
    xs = [dimension for dimension in dimensions if _runs(dimension, EAST, variables)]
    if ys and xs and ys[-1] != xs[-1]:
        return _grid(variable, ys[-1], xs[-1], variables)
    for name, coordinate in variables.items():
        y, x = coordinate.dims[-2:] if len(coordinate.dims) >= 2 else ("", "")
        if coordinate is not variable and y in dimensions and x in dimensions and _is_angle(name, coordinate, NORTH):
            return _grid(variable, str(y), str(x), variables)
    return None


def _grid(variable: Variable, y: str, x: str, variables: Mapping[str, Variable]) -> Grid:
    height, width = variable.sizes[y], variable.sizes[x]
    latitudes, longitudes = angles(y, NORTH, variables), angles(x, EAST, variables)
    if latitudes is None or longitudes is None:
        return Grid(y, x, (Axis(height, "node"), Axis(width, "node")), sphere=False)
    kind: AxisKind = "periodic" if _goes_round(longitudes) else "node"
    return Grid(y, x, (Axis(height, "node", points=latitudes), Axis(width, kind, points=longitudes)), sphere=True)


def angles(dimension: str, direction: Direction, variables: Mapping[str, Variable]) -> np.ndarray | None:
    """Return [size] float64 degrees along a dimension, strictly monotonic; None if it is no latitude or longitude.

    Longitudes that jump by a turn on the way (0 … 180, -179 … -1) are continued instead.
    """
    name = coordinate_of(dimension, direction, variables)
    if name is None or not _is_angle(name, variables[name], direction):
        return None
    degrees = numbers_of(variables[name])
    if degrees is None:
        return None
    if direction is NORTH:
        return degrees if is_monotonic(degrees) and np.abs(degrees).max() <= 90.001 else None
    if not is_monotonic(degrees):
        degrees = np.unwrap(degrees, period=360)
    return degrees if is_monotonic(degrees) and np.ptp(degrees) <= 360.001 else None


def numbers_of(coordinate: Variable) -> np.ndarray | None:
    """Return the [size] float64 unpacked numbers of a 1-D variable; None unless all are finite."""
    if coordinate.dtype.kind not in "iuf" or not coordinate.size:
        return None
    try:
        packing = packing_of("", coordinate.dtype, coordinate.attrs)
    except SignalError:
        return None
    values, missing = unpack(coordinate.values, packing)
    return values.astype(np.float64) if not missing.any() and np.isfinite(values).all() else None


def is_monotonic(numbers: np.ndarray) -> bool:
    steps = np.diff(numbers)
    return bool((steps > 0).all() or (steps < 0).all())


def _goes_round(longitudes: np.ndarray) -> bool:
    """Say whether longitudes go round the globe in equal steps, to the precision of single-precision numbers."""
    if longitudes.size < 2:
        return False
    step = (longitudes[-1] - longitudes[0]) / (longitudes.size - 1)
    equal = np.abs(longitudes - (longitudes[0] + step * np.arange(longitudes.size))).max()
    return bool(max(equal, abs(abs(step) * longitudes.size - 360)) <= 0.01 * abs(step))
