"""`dataset.inr.sample(...)`: fields of a dataset that was opened from an `.inr` file, asked at any points.

On a grid point the answer is the dataset's value, so that a bound holds there. Between grid points it is what the field
shows there, plus what the four grid points around are off it, interpolated linearly: the residual of a bound, and what
is kept exactly. Where all four are exactly zero, as where no rain fell, so is the answer. Where the nearest grid point
has no value there is none.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray
from pandas.errors import InvalidIndexError

from inrcodec.errors import UsageError
from inrcodec.signals import exact_reader
from inrcodec.signals.cf_fields import FieldReader
from inrcodec.signals.cf_packing import PACKING_ATTRIBUTES
from inrcodec.signals.reading_errors import reason

ENCODING = "inr"
"""Key of a variable's encoding that says which field it is; what is computed from a variable does not have it."""

SNAP = 1e-3
"""Steps of a grid within which a point is taken for one of the grid."""

POINTS = 1 << 18
"""Points that are asked at a time."""


@dataclass(frozen=True, eq=False)
class Direction:
    """One of the two directions of a grid. keyword: what it is asked by. coordinates: monotonic; None if not known.

    turns: whether coordinates are longitudes, which go on after a turn. closed: whether the grid goes all around.
    """

    keyword: str
    coordinates: np.ndarray | None
    turns: bool = False
    closed: bool = False

    def positions(self, asked: np.ndarray) -> np.ndarray:
        """Return where coordinates are, in samples, the ends for half a step beyond them; NaN outside.

        Raises: UsageError if there are no coordinates to ask by.
        """
        if self.coordinates is None:
            raise UsageError(f"a field has no coordinates to ask by along {self.keyword!r}")
        if self.keyword == "lat" and (np.abs(asked) > 90).any():
            raise UsageError(f"lat={asked[np.abs(asked) > 90].flat[0]:g} is no latitude: give degrees from -90 to 90")
        known, index = self.coordinates, np.arange(len(self.coordinates), dtype=np.float64)
        if self.closed:
            known = np.append(known, known[0] + np.copysign(360, known[-1] - known[0]))
            index = np.append(index, index.size)
        if known[-1] < known[0]:
            known, index = known[::-1], index[::-1]
        low, high = known[0], known[-1]
        if self.closed:
            asked = low + (asked - low) % 360
        elif len(known) > 1:
            low, high = low - (known[1] - known[0]) / 2, high + (known[-1] - known[-2]) / 2
        if self.turns and not self.closed:
            middle = (low + high) / 2
            asked = middle + (asked - middle + 180) % 360 - 180
        positions = np.interp(asked, known, index)
        near = np.rint(positions)
        positions = np.where(np.abs(positions - near) <= SNAP, near, positions)
        if self.closed:
            positions %= len(self.coordinates)
        return np.where((asked >= low) & (asked <= high), positions, np.nan)


@dataclass(frozen=True, eq=False)
class FieldSource:
    """The field that a variable is. ask: as of `LazySignal`.

    indexes: of the file's dimensions. directions: of the grid, y and x.
    """

    reader: FieldReader
    ask: Callable[[np.ndarray], np.ndarray]
    indexes: Mapping[str, Any]
    directions: tuple[Direction, Direction]

    def __deepcopy__(self, memo: Any) -> "FieldSource":
        return self  # nothing of it ever changes, and it is a whole file

    @property
    def leading(self) -> list[str]:
        """The dimensions that slices are along, in their order."""
        field = self.reader.field
        return [local_name(field.dimensions[place]) for place in field.leading]


def local_name(name: str) -> str:
    """Return the name of a variable or dimension in its group."""
    return name.rsplit("/", 1)[-1]


_register: Any = xarray.register_dataset_accessor  # without types in xarray


@_register("inr")
class InrAccessor:
    """What datasets that were opened from `.inr` files can do besides."""

    def __init__(self, dataset: xarray.Dataset) -> None:
        self._dataset = dataset

    def sample(self, *, method: str | None = None, tolerance: Any = None, **places: Any) -> xarray.Dataset:
        """Ask the fields at any points, on the grid or between its points.

        >>> dataset.inr.sample(lat=52.52, lon=13.4)  # at all times
        >>> dataset.inr.sample(lat=track.lat, lon=track.lon, time=track.time, method="nearest")

        lat, lon: degrees; longitudes go on after a turn. Grids of other coordinates are asked by the names of their
            dimensions.
        Other names are those of dimensions, as time or level: fields are asked in one of their slices, never between
            two. Values must be among the coordinates, or method="nearest" takes the nearest of these, if it is not
            further off than `tolerance`, as `Dataset.sel` does. The coordinates that were taken are in the result.
            Dimensions that are not given stay.
        Give numbers; arrays, which broadcast, and of which the result has a dimension "point", or "point_0" and so on;
            or arrays of xarray, which broadcast by their dimensions.
        Returns the fields there: the dataset's values on grid points, in the same units and types. They are NaN outside
            the grid and where the nearest grid point has no value. Variables that are no fields are left out.
        Raises: UsageError if the dataset has no field of an `.inr` file, and for names and coordinates that are not
            there; SignalError, ContainerError if the file cannot be decoded.
        """
        sources = {
            str(name): variable.encoding[ENCODING]
            for name, variable in self._dataset.data_vars.items()
            if isinstance(variable.encoding.get(ENCODING), FieldSource)
        }
        if not sources:
            raise UsageError(
                "no variable of this dataset is a field as it is in an .inr file: open one with xarray.open_dataset, "
                "and ask it before anything is computed with it"
            )
        asked = _together(places)
        known = {
            name for each in sources.values() for name in (*(one.keyword for one in each.directions), *each.leading)
        }
        for name in sorted(asked.keys() - known):
            raise UsageError(f"fields are not asked by {name!r}, but by {', '.join(sorted(known))}")
        sampled = {
            name: _Sampling(self._dataset[name], source, asked, method, tolerance).result()
            for name, source in sources.items()
        }
        return xarray.Dataset(sampled, attrs=self._dataset.attrs)


def _together(places: Mapping[str, Any]) -> dict[str, xarray.DataArray]:
    """Return what is asked as arrays with names for their dimensions. Raises: UsageError if they do not fit."""
    named = {name: each.variable for name, each in places.items() if isinstance(each, xarray.DataArray)}
    plain = {name: np.asarray(each) for name, each in places.items() if name not in named}
    shapes = ", ".join(f"{name} of shape {each.shape}" for name, each in plain.items())
    try:
        shape = np.broadcast_shapes(*(each.shape for each in plain.values()))
    except ValueError as error:
        raise UsageError(f"arrays do not go together: {shapes}") from error
    if shape and named:
        raise UsageError(f"give arrays of xarray only, or none: {shapes}, {', '.join(named)} with named dimensions")
    dimensions = ["point"] if len(shape) == 1 else [f"point_{number}" for number in range(len(shape))]
    arrays = {name: xarray.DataArray(np.broadcast_to(each, shape), dims=dimensions) for name, each in plain.items()}
    return arrays | {name: xarray.DataArray(each) for name, each in named.items()}


class _Sampling:
    """The asking of one variable."""

    def __init__(
        self,
        variable: xarray.DataArray,
        source: FieldSource,
        asked: Mapping[str, xarray.DataArray],
        method: str | None,
        tolerance: Any,
    ) -> None:
        self._variable, self._source = variable, source
        self._method, self._tolerance = method, tolerance
        self._places = []
        for each in source.directions:
            if each.keyword not in asked:
                names = " and ".join(direction.keyword for direction in source.directions)
                raise UsageError(f"the field {variable.name!r} is asked by {names}: give both")
            self._places.append(asked[each.keyword])
        self._asked = {name: asked[name] for name in source.leading if name in asked}
        self._kept = [str(name) for name in variable.dims if name in source.leading and name not in self._asked]
        self._along = list(xarray.broadcast(*self._places, *self._asked.values())[0].dims)
        both = [str(name) for name in self._along if name in self._kept]
        if both:
            raise UsageError(
                f"points along {both[0]!r}, a dimension of the field {variable.name!r}: give coordinates for it too"
            )

    def result(self) -> xarray.DataArray:
        """Return the field where it is asked."""
        found = {name: self._found(name, each) for name, each in self._asked.items()}
        dims = [*self._kept, *self._along]
        slices = self._slices(found)
        rows, columns = (
            xarray.DataArray(direction.positions(np.asarray(place, np.float64)), dims=place.dims)
            for direction, place in zip(self._source.directions, self._places, strict=True)
        )
        every = xarray.broadcast(*slices, rows, columns)
        *slices, rows, columns = (each.transpose(*dims) for each in every)
        sizes = self._source.reader.field.sizes
        numbers = np.ravel_multi_index([each.values for each in slices], sizes) if slices else np.zeros(rows.shape, int)
        values = _Asking(self._source).values(numbers.ravel(), rows.values.ravel(), columns.values.ravel())
        attributes = {key: value for key, value in self._variable.attrs.items() if key not in PACKING_ATTRIBUTES}
        return xarray.DataArray(
            values.reshape(rows.shape), self._coordinates(found), dims, self._variable.name, attributes
        )

    def _found(self, name: str, asked: xarray.DataArray) -> xarray.DataArray:
        """Return the indices of the variable's slices along a dimension. Raises: UsageError if there are none."""
        if name not in self._variable.dims:
            raise UsageError(f"the dimension {name!r} of the field {self._variable.name!r} is selected already")
        if name not in self._variable.indexes:
            raise UsageError(f"the dimension {name!r} has no coordinates: select with isel before")
        index = self._variable.indexes[name]
        values = asked.values.ravel()
        try:
            if index.dtype.kind == "M":
                values = values.astype("datetime64[ns]")
            found = index.get_indexer(values, method=self._method, tolerance=self._tolerance)
        except (ValueError, TypeError, InvalidIndexError) as error:
            raise UsageError(f"{name} cannot be looked up ({reason(error)})") from error
        if (found < 0).any():
            hint = "" if self._method else '; method="nearest" takes the nearest'
            raise UsageError(
                f"{name}={values[found < 0][0]} is not among its {len(index)} coordinates, {index[0]} to "
                f"{index[-1]}{hint}"
            )
        return xarray.DataArray(found.reshape(asked.shape), dims=asked.dims)

    def _slices(self, found: Mapping[str, xarray.DataArray]) -> list[xarray.DataArray]:
        """Return the indices along the file's dimensions, in the order of its slices. Raises: UsageError."""
        slices = []
        for name, size in zip(self._source.leading, self._source.reader.field.sizes, strict=True):
            own = self._in_file(name, size)
            if name in found:
                slices.append(xarray.DataArray(own[found[name].values], dims=found[name].dims))
            else:
                slices.append(xarray.DataArray(own, dims=[name]) if name in self._kept else xarray.DataArray(own[0]))
        return slices

    def _in_file(self, name: str, size: int) -> np.ndarray:
        """Return which indices of the file a dimension of the variable has, one if it is no dimension any more."""
        variable, before = self._variable, self._source.indexes.get(name)
        count = variable.sizes.get(name, 1)
        now = variable.indexes.get(name)
        if now is None and name in variable.coords and before is not None:
            now = xarray.DataArray(np.atleast_1d(variable.coords[name].values), dims=name, name=name).to_index()
        if now is None or before is None:
            if count == size:
                return np.arange(size)
        elif now.equals(before):
            return np.arange(size)
        elif before.is_unique:
            places: np.ndarray = before.get_indexer(now)
            if (places >= 0).all():
                return places
        raise UsageError(
            f"coordinates do not tell which part of {name!r} the field {variable.name!r} has: ask the dataset as it "
            "was opened"
        )

    def _coordinates(self, found: Mapping[str, xarray.DataArray]) -> dict[Any, Any]:
        """Return the coordinates of the result."""
        left = set(self._source.leading) & set(self._variable.dims)
        coordinates = self._variable.coords.to_dataset()
        coordinates = coordinates.drop_vars(
            [name for name, each in coordinates.coords.items() if set(each.dims) - left]
        )
        coordinates = coordinates.isel({name: each.variable for name, each in found.items()})
        field = self._source.reader.field
        for name, place in zip((field.y, field.x), self._places, strict=True):
            local = local_name(name)
            attributes = self._variable.coords[local].attrs if local in self._variable.coords else {}
            coordinates = coordinates.assign_coords({local: (place.dims, place.values.astype(np.float64), attributes)})
        return dict(coordinates.coords)


class _Asking:
    """Asks a field at points of its slices."""

    def __init__(self, source: FieldSource) -> None:
        self._reader, self._field, self._ask = source.reader, source.reader.field, source.ask
        self._closed = source.directions[1].closed
        self._dtype = self._decoded(np.zeros((1, 1), self._reader.packing.stored)).dtype
        signal = self._field.signal
        self._zero = signal.attributes["zeros"][0] if "zeros" in signal.attributes else None
        # Of no grid: within the limits, but for zeros.
        self._limited = exact_reader(
            signal.modality, signal.name, signal.attributes, signal.shape, (0, 0, 0), np.dtype(np.float64)
        )

    def values(self, slices: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Return the values at points [n]: numbers of slices, and positions in samples, NaN outside the grid."""
        values = np.full(len(slices), np.nan, np.promote_types(self._dtype, np.float32))
        inside = np.flatnonzero(~(np.isnan(rows) | np.isnan(columns)))
        inside = inside[np.argsort(slices[inside], kind="stable")]  # a slice is decoded once
        for begin in range(0, len(inside), POINTS):
            some = inside[begin : begin + POINTS]
            values[some] = self._block(slices[some], rows[some], columns[some])
        return values

    def _block(self, slices: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        _, height, width = self._field.signal.shape
        (top, bottom), down = _around(rows, height, closed=False)
        (left, right), across = _around(columns, width, closed=self._closed)
        corners = [(row, column) for row in (top, bottom) for column in (left, right)]
        shares = np.stack([one * other for one in (1 - down, down) for other in (1 - across, across)])
        known, present = self._decoded_at(slices, corners)
        shown = self._shown(slices, [(rows, columns), *corners])
        shares = np.where(present, shares, 0.0)
        total = shares.sum(0)
        with np.errstate(invalid="ignore"):
            off = (shares * np.where(present, known - shown[1:], 0.0)).sum(0) / total
        values = self._limited((shown[0] + off).reshape(-1, 1, 1, 1), 0).ravel()
        if self._zero is not None:
            same = known.astype(self._reader.packing.value_dtype) == self._zero
            values = np.where((same & present).all(0), known[0], values)
        nearest = 2 * (down > 0.5) + (across > 0.5), np.arange(len(slices))
        values = np.where(present[nearest], values, np.nan)
        on_grid = np.isin(down, (0, 1)) & np.isin(across, (0, 1))
        return np.where(on_grid, known[nearest], values)

    def _shown(self, slices: np.ndarray, places: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
        """Return what the field shows at some places of each point, [places, n]."""
        points = np.concatenate([np.stack([slices, *place]) for place in places], axis=1)
        return self._ask(points)[:, 0].reshape(len(places), -1)

    def _decoded_at(
        self, slices: np.ndarray, corners: Sequence[tuple[np.ndarray, np.ndarray]]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the decoded values of the grid points around each point, and whether there are any, [corners, n]."""
        known = np.empty((len(corners), len(slices)))
        present = np.ones(known.shape, bool)
        numbers, begins = np.unique(slices, return_index=True)
        for number, begin, end in zip(numbers.tolist(), begins, [*begins[1:], len(slices)], strict=True):
            plane, missing = self._reader.plane(number)
            values = self._decoded(plane).astype(np.float64)
            gaps = np.isnan(values) if missing is None else missing | np.isnan(values)
            for corner, (row, column) in enumerate(corners):
                at = row[begin:end], column[begin:end]
                known[corner, begin:end], present[corner, begin:end] = values[at], ~gaps[at]
        return known, present

    def _decoded(self, numbers: np.ndarray) -> np.ndarray:
        """Return stored numbers [H, W] as xarray decodes them."""
        variable = xarray.Variable(("y", "x"), numbers, self._field.attributes)
        decoded: np.ndarray = xarray.conventions.decode_cf_variable(
            self._field.name, variable, decode_times=False
        ).values
        return decoded


def _around(positions: np.ndarray, size: int, *, closed: bool) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
    """Return the samples before and after positions along an axis, and how far on the way from one to the other."""
    before = np.floor(positions).astype(np.int64)
    if not closed:
        before = before.clip(0, max(size - 2, 0))
    after = (before + 1) % size if closed else np.minimum(before + 1, size - 1)
    return (before, after), positions - before
