"""Several climate files as one: they follow each other along a dimension.

Numbers on grids stay in their files, of which few are open at a time. All else that differs between files is joined
exactly (coordinates, times of different epochs, packings) or refused, with the names of two files.
"""

import math
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
from xarray import Variable

from inrcodec.errors import InrcodecWarning, SignalError
from inrcodec.signals.cf_grid import data_grids, numbers_of
from inrcodec.signals.cf_packing import PACKING_ATTRIBUTES, Packing, packing_of, unpack
from inrcodec.signals.cf_slices import BLOCK, Key, StoredNumbers
from inrcodec.signals.cf_times import Times, calendar_of, converted
from inrcodec.signals.climate_files import stays_in_file, warn
from inrcodec.signals.netcdf import Contents, Dimension, repeated_dimensions
from inrcodec.signals.reading_errors import files_label

OPEN_FILES = 8
"""Files of a series that are open at a time: each has buffers of its own."""

NAMED_ATTRIBUTES = 8
"""Attributes that a warning names."""

MEANING = (
    *("units", "calendar", "standard_name", "positive", "grid_mapping", "coordinates", "bounds", "climatology"),
    *("cell_measures", "formula_terms", "flag_values", "flag_masks", "flag_meanings"),
)
"""Attributes that say what numbers are: files that differ in them are no series."""

Load = Callable[[Path, ExitStack], Contents]
Convert = Callable[[np.ndarray], np.ndarray]


@repeated_dimensions()
def load_series(paths: Sequence[Path], dimension: str, load: Load, stack: ExitStack) -> Contents:
    """Return the contents of files that follow each other along a dimension, readable as long as `stack` is open.

    Where each file has one value of the dimension only, as a variable without dimensions, its fields are put along it.
    Times of other units than the first file's are converted, fields of several packings unpacked. Attributes that
    differ are left out, but for those that say what numbers are.

    load: reads a file.
    Raises: SignalError if the files are no series, naming two of them and what differs.
    """
    series = _Series(paths, dimension, load, stack)
    parts = [series.outline(0)]
    for number in range(1, len(paths)):
        parts.append(series.outline(number))
        series.check(parts[0], parts[-1], number)
    return series.joined(parts)


class _Series:
    """The files of a series: few are open at a time, those that were read last."""

    def __init__(self, paths: Sequence[Path], dimension: str, load: Load, stack: ExitStack) -> None:
        self._paths, self._dimension, self._load = paths, dimension, load
        self._open: OrderedDict[int, tuple[Contents, ExitStack]] = OrderedDict()
        stack.callback(self._close)

    def _close(self) -> None:
        while self._open:
            self._open.popitem()[1][1].close()

    def _contents(self, number: int) -> Contents:
        """Return the contents of a file. Raises: SignalError if it has no such dimension."""
        if number not in self._open:
            if len(self._open) == OPEN_FILES:
                self._open.popitem(last=False)[1][1].close()
            with ExitStack() as stack:
                contents = self._load(self._paths[number], stack)
                self._open[number] = self._along(number, contents), stack.pop_all()
        self._open.move_to_end(number)
        return self._open[number][0]

    def _along(self, number: int, contents: Contents) -> Contents:
        """Return contents with the dimension, also where it is a variable without dimensions."""
        name = self._dimension
        if name in contents.dimensions:
            return contents
        if name not in contents.variables or contents.variables[name].dims:
            known = ", ".join(contents.dimensions) or "none"
            raise SignalError(f"{self._paths[number]} has no dimension {name!r} for a series; there are: {known}")
        variables = dict(contents.variables)
        for each in (name, *data_grids(contents)):
            variables[each] = _expanded(variables[each], name)
        return replace(contents, dimensions={name: Dimension(1), **contents.dimensions}, variables=variables)

    def _numbers(self, number: int, name: str, key: Key) -> np.ndarray:
        """Return some stored numbers of a variable of a file."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", InrcodecWarning)  # they were given when the file was looked at
            variable = self._contents(number).variables[name]
        numbers: np.ndarray = variable[key].values
        return numbers

    def outline(self, number: int) -> Contents:
        """Return the contents of a file, with zeros for the numbers that stay in it."""
        contents = self._contents(number)
        return replace(contents, variables={name: _outlined(name, contents.variables) for name in contents.variables})

    def check(self, first: Contents, other: Contents, number: int) -> None:
        """Compare a file with the first one. Raises: SignalError where they differ and must not."""
        for name in sorted(first.variables.keys() ^ other.variables.keys()):
            raise self._refused(number, f"only one of them has a variable {name!r}")
        for name in sorted(first.dimensions.keys() & other.dimensions.keys() - {self._dimension}):
            sizes = [each.dimensions[name].size for each in (first, other)]
            if sizes[0] != sizes[1]:
                raise self._refused(number, f"{name!r} has {sizes[1]} points, not {sizes[0]}")
        for name, before in first.variables.items():
            after = other.variables[name]
            what = f"variable {name!r}"
            if before.dims != after.dims:
                raise self._refused(number, f"{what} is on {_list(after.dims)}, not on {_list(before.dims)}")
            if before.dtype != after.dtype or before.encoding.get("enum") != after.encoding.get("enum"):
                raise self._refused(number, f"{what} is of type {after.dtype}, not {before.dtype}")
            stays = bool(before.dims) and self._dimension not in before.dims
            times = [Times.of(name, each.variables) for each in (first, other)]
            for key in MEANING:
                ours, others = before.attrs.get(key), after.attrs.get(key)
                converted = key == "units" and not stays and None not in times
                alike = key == "calendar" and calendar_of(ours) == calendar_of(others)
                if not (converted or alike or _same(ours, others)):
                    raise self._refused(number, f"{what} has {key} {others!r}, not {ours!r}")
            if stays:
                self._check_same(number, name, before, after)

    def _check_same(self, number: int, name: str, before: Variable, after: Variable) -> None:
        """Compare a variable without the dimension. Raises: SignalError if it is not the same in both files."""
        for key in PACKING_ATTRIBUTES:
            if not _same(before.attrs.get(key), after.attrs.get(key)):
                raise self._refused(number, f"variable {name!r} has another {key}")
        for block in _blocks(before):
            if not _same(self._numbers(0, name, block), self._numbers(number, name, block)):
                raise self._refused(number, f"variable {name!r} has other values, and no dimension {self._dimension!r}")

    def _refused(self, number: int, what: str) -> SignalError:
        return SignalError(
            f"{self._paths[number]} does not follow {self._paths[0]} along {self._dimension!r}: {what}; encode what "
            "differs by itself"
        )

    def joined(self, parts: Sequence[Contents]) -> Contents:
        """Return the contents of all files. Raises: SignalError if they are not in order, or cannot be joined."""
        first, along = parts[0], self._dimension
        sizes = [part.dimensions[along].size for part in parts]
        differing: dict[str, None] = {}
        attributes = {
            place: _common(place, [part.attributes.get(place, {}) for part in parts], differing)
            for place in first.attributes
        }
        variables = {}
        for name in first.variables:
            every = [part.variables[name] for part in parts]
            own = _common(name, [each.attrs for each in every], differing)
            variables[name] = self._joined(name, parts, every, sizes, own)
        if differing:
            names = ", ".join(list(differing)[:NAMED_ATTRIBUTES])
            more = ", and others" if len(differing) > NAMED_ATTRIBUTES else ""
            warn(f"{files_label(self._paths)}: attributes that differ between the files are left out: {names}{more}")
        self._check_order(variables, sizes)
        whole = Dimension(sum(sizes), first.dimensions[along].unlimited)
        return Contents({**first.dimensions, along: whole}, attributes, variables)

    def _joined(
        self,
        name: str,
        parts: Sequence[Contents],
        every: Sequence[Variable],
        sizes: Sequence[int],
        attributes: dict[str, Any],
    ) -> Variable:
        """Return a variable of all files. every: that of each. sizes: of the dimension in each."""
        first = every[0]
        times = [Times.of(name, part.variables) for part in parts]
        if not first.dims and not all(_same_value(first, each) for each in every):
            every = [
                Variable([self._dimension], np.repeat(each.values, size), each.attrs, each.encoding)
                for each, size in zip(every, sizes, strict=True)
            ]
            first = every[0]
        if self._dimension not in first.dims:
            if not _stays(first):
                return Variable(first.dims, first.values, attributes, first.encoding)
            return self._lazy(name, first, attributes, first.dtype, [first.shape], [_unchanged])
        if any(each is not None and each != times[0] for each in times):
            return Variable(first.dims, self._times(name, every, times), attributes, first.encoding)
        dtype, convert = first.dtype, cast(list[Convert], [_unchanged] * len(every))
        if not all(_same_packing(first, each) for each in every):
            dtype, convert = self._unpacked(name, every)
            attributes = {key: value for key, value in attributes.items() if key not in PACKING_ATTRIBUTES}
            attributes["_FillValue"] = dtype.type(np.nan)
        if _stays(first):
            return self._lazy(name, first, attributes, dtype, [each.shape for each in every], convert)
        data = [each(variable.values) for each, variable in zip(convert, every, strict=True)]
        return Variable(first.dims, np.concatenate(data, first.dims.index(self._dimension)), attributes, first.encoding)

    def _lazy(
        self,
        name: str,
        first: Variable,
        attributes: dict[str, Any],
        dtype: np.dtype,
        shapes: Sequence[tuple[int, ...]],
        convert: Sequence[Convert],
    ) -> Variable:
        """Return a variable whose numbers stay in files, in the first or, along the dimension, in one after the other.

        shapes: of what each file has. convert: what becomes of a file's numbers, of type `dtype` then.
        """
        axis = first.dims.index(self._dimension) if self._dimension in first.dims else 0
        ends = list(accumulate(shape[axis] for shape in shapes))
        shape = (*first.shape[:axis], ends[-1], *first.shape[axis + 1 :])

        def read(key: Key) -> np.ndarray:
            begin, end = key[axis].start, key[axis].stop
            found = []
            for number, last in enumerate(ends):
                start = last - shapes[number][axis]
                own = slice(max(begin, start) - start, min(end, last) - start)
                if own.start < own.stop:
                    numbers = self._numbers(number, name, (*key[:axis], own, *key[axis + 1 :]))
                    found.append(convert[number](numbers))
            return np.concatenate(found, axis) if found else np.empty([each.stop - each.start for each in key], dtype)

        stored = StoredNumbers(shape, dtype, read)
        return stored.variable([str(each) for each in first.dims], attributes, first.encoding.get("chunks"))

    def _times(self, name: str, every: Sequence[Variable], times: Sequence[Times | None]) -> np.ndarray:
        """Return times of different units as those of the first file, or as its numbers would be in double precision.

        Raises: SignalError if neither holds them.
        """
        first = every[0]
        for dtype in (first.dtype, np.dtype(np.float64)):
            data = []
            for number, (variable, own) in enumerate(zip(every, times, strict=True)):
                try:
                    assert own is not None and times[0] is not None
                    data.append(converted(variable, own, times[0], dtype))
                except (ValueError, OverflowError) as error:
                    refused = self._refused(number, f"the times of variable {name!r} cannot be joined ({error})")
                    break
            else:
                return np.concatenate(data, first.dims.index(self._dimension))
        raise refused

    def _unpacked(self, name: str, every: Sequence[Variable]) -> tuple[np.dtype, list[Convert]]:
        """Return a type that holds the values of files which pack them differently, and what unpacks those of each.

        Raises: SignalError if there is none.
        """
        first = every[0]
        number = next(number for number, each in enumerate(every) if not _same_packing(first, each))
        packings = [
            packing_of(f"{path}: variable {name!r}", each.dtype, each.attrs)
            for path, each in zip(self._paths, every, strict=True)
        ]
        is_float = first.dtype.kind == "f" and all(packing.scale is None for packing in packings)
        if not (first.dtype.kind == "f" or (first.dtype.kind in "iu" and first.dtype.itemsize <= 4)):
            raise self._refused(number, f"variable {name!r} of type {first.dtype} is packed in another way")
        dtype = first.dtype if is_float else np.dtype(np.float64)
        warn(
            f"{self._paths[number]} packs variable {name!r} in another way than {self._paths[0]}: it is unpacked to "
            f"{dtype}"
        )
        return dtype, [partial(_unpack, packing, dtype) for packing in packings]

    def _check_order(self, variables: dict[str, Variable], sizes: Sequence[int]) -> None:
        """Compare the coordinates of neighbouring files. Raises: SignalError if they overlap or are not in order.

        Times ascend; other coordinates may as well descend.
        """
        along = self._dimension
        coordinate = variables.get(along)
        numbers = None if coordinate is None or coordinate.dims != (along,) else numbers_of(coordinate)
        if coordinate is None or numbers is None:
            warn(f"{files_label(self._paths)}: {along!r} has no numbers to put files in order by: they come as given")
            return
        unit = f" {coordinate.attrs['units']}" if "units" in coordinate.attrs else ""
        parts = zip(self._paths, np.split(numbers, list(accumulate(sizes))[:-1]), strict=True)
        spans = [(path, float(part.min()), float(part.max())) for path, part in parts if part.size]
        descends = Times.of(along, variables) is None and spans[-1][2] < spans[0][1]
        for (one, low, high), (other, lowest, highest) in pairwise(spans):
            if highest < low if descends else high < lowest:
                continue
            if low <= highest and lowest <= high:
                what, advice = "overlaps", "leave out what is there twice"
            else:
                what, advice = "comes before" if not descends else "comes after", "give the files in order"
            raise SignalError(
                f"{other} {what} {one} along {along!r} ({lowest:.15g} to {highest:.15g}, and {low:.15g} to "
                f"{high:.15g}{unit}): {advice}"
            )


def _stays(variable: Variable) -> bool:
    return stays_in_file(variable) and "enum" not in variable.encoding


def _outlined(name: str, variables: Mapping[str, Variable]) -> Variable:
    """Return a variable with zeros for numbers that stay in their file; times are read, as they may be converted."""
    variable = variables[name]
    if not _stays(variable):
        return variable
    if Times.of(name, variables) is not None:
        return Variable(variable.dims, variable.values, variable.attrs, variable.encoding)
    zeros = np.broadcast_to(np.zeros((), variable.dtype), variable.shape)
    return Variable(variable.dims, zeros, variable.attrs, variable.encoding)


def _expanded(variable: Variable, dimension: str) -> Variable:
    """Return a variable with another first dimension, of one index."""
    dims = [dimension, *map(str, variable.dims)]
    if not _stays(variable):
        return Variable(dims, variable.values[np.newaxis], variable.attrs, variable.encoding)

    def read(key: Key) -> np.ndarray:
        return variable[key[1:]].values[np.newaxis][key[:1]]

    chunks = variable.encoding.get("chunks")
    stored = StoredNumbers((1, *variable.shape), variable.dtype, read)
    return stored.variable(dims, variable.attrs, (1, *chunks) if chunks else None)


def _unchanged(numbers: np.ndarray) -> np.ndarray:
    return numbers


def _unpack(packing: Packing, dtype: np.dtype, numbers: np.ndarray) -> np.ndarray:
    """Return values of a type, NaN where they are missing."""
    _, missing = unpack(numbers, packing)
    values = numbers.view(packing.number).astype(dtype)
    if packing.scale is not None:
        values = values * packing.scale + packing.offset
    values[missing] = np.nan
    return values


def _same(one: Any, other: Any) -> bool:
    """Say whether two attributes or arrays are of one type and the same, NaN included."""
    a, b = np.asarray(one), np.asarray(other)
    if a.dtype.kind in "OU" or b.dtype.kind in "OU":
        return a.dtype.kind == b.dtype.kind and a.tolist() == b.tolist()
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def _same_value(one: Variable, other: Variable) -> bool:
    """Say whether two variables without dimensions are the same, as they are stored."""
    units = (each.attrs.get("units") for each in (one, other))
    return _same(one.values, other.values) and _same(*units) and _same_packing(one, other)


def _same_packing(one: Variable, other: Variable) -> bool:
    return all(_same(one.attrs.get(key), other.attrs.get(key)) for key in PACKING_ATTRIBUTES)


def _common(owner: str, every: Sequence[dict[str, Any]], differing: dict[str, None]) -> dict[str, Any]:
    """Return the attributes that are the same in all files, and the first file's of those that joining looks after.

    differing: gets the names of the others.
    """
    common = {}
    for key in dict.fromkeys(key for each in every for key in each):
        looked_after = key in PACKING_ATTRIBUTES or key in MEANING
        if all(key in each and _same(each[key], every[0].get(key)) for each in every) or looked_after:
            if key in every[0]:
                common[key] = every[0][key]
        else:
            differing[f"{owner}:{key}" if owner else key] = None
    return common


def _list(dimensions: Sequence[Any]) -> str:
    return f"({', '.join(map(str, dimensions))})"


def _blocks(variable: Variable) -> Iterator[Key]:
    """Yield regions of a variable of a size that is compared at once."""
    length, *others = variable.shape
    rows = max(1, BLOCK // max(1, math.prod(others) * variable.dtype.itemsize))
    for begin in range(0, length, rows):
        yield (slice(begin, min(begin + rows, length)), *(slice(0, size) for size in others))
