"""Climate fields: NetCDF (classic and HDF5) and Zarr, and reading of GRIB.

One signal per variable on a horizontal grid; the other variables travel losslessly in the attributes of the
first signal, as do those that no field can hold: strings, times, categories, small and 64-bit integers. A file of
nothing else becomes one signal of one value that carries it. A signal's attributes:

    "dimensions", "shape"   of the variable as stored, in the file's order
    "leading"               its other dimensions in the order in which the slices come, where that is not the file's;
                            by their places among these
    "horizontal"            names of the latitude (or y) and the longitude (or x) dimension
    "dtype", "attributes"   as stored: packing, fill value, units, names
    "limits", "zeros", "gaps"  what is kept exactly: see `cf_exact`
    "file"                  (first signal only) "dimensions" [[name, size, unlimited]], "attributes" and
                            "variables" in the file's order, those on grids by their name alone; "groups": the
                            attributes of each, by its path
    "carrier"               True of a signal that only carries the file

Decoded at another resolution, the horizontal coordinates are replaced by the signal's own (projected ones are
interpolated), of lossless variables on a grid the nearest numbers are taken, and other variables along these
dimensions, such as bounds, cell areas or 2-D coordinates, are left out together with the references to them.
"""

import importlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from inrcodec.errors import SignalError
from inrcodec.signals.lazy import AnySignal
from inrcodec.signals.reading_errors import files_label
from inrcodec.signals.signal import Signal

if TYPE_CHECKING:
    from inrcodec.signals.cf_slices import Key
    from inrcodec.signals.netcdf import Contents

MODALITY = "climate"
GRIB_EXTENSIONS = (".grib", ".grib1", ".grib2", ".grb", ".grb1", ".grb2")
MALFORMED = (LookupError, TypeError, ValueError, AttributeError, OverflowError)
"""Errors that attributes lead to which `read` did not make."""

ZARR = ".zarr"
WRITABLE = (".nc", ".nc4", ".cdf", ".netcdf", ZARR)
EXTENSIONS = (*WRITABLE, *GRIB_EXTENSIONS)
DEFAULT_EXTENSION = ".nc"


@contextmanager
def opened(path: Path) -> Iterator[list[AnySignal]]:
    """Open all variables on a horizontal grid as signals, in the file's order, named by the variable.

    Values are unpacked: [S, H, W, 1], S the product of all leading dimensions, those of the most similar neighbours
    last; in the variable's own type or,
    if it was packed, float32 (float64 where float32 would not tell the packed numbers apart). What was infinite, or
    seems to be an undeclared fill value, is missing; a warning says so. Long signals are lazy: they are looked through
    once, and read from the file again as long as it is open.

    Raises: SignalError if the file cannot be read or holds nothing.
    """
    with ExitStack() as stack:
        yield _signals(str(path), lambda: _load(path, stack))


@contextmanager
def opened_series(paths: Sequence[Path], dimension: str) -> Iterator[list[AnySignal]]:
    """Open files that follow each other along a dimension as one; the signals are as for `opened`.

    Few files are open at a time. `cf_series.load_series` says what is joined and what is refused.
    Raises: SignalError if a file cannot be read, or they are no series.
    """
    from inrcodec.signals.cf_series import load_series

    with ExitStack() as stack:
        yield _signals(files_label(paths), lambda: load_series(paths, dimension, _load, stack))


def _signals(label: str, load: "Callable[[], Contents]") -> list[AnySignal]:
    from inrcodec.signals.climate_reading import signals_of

    try:
        contents = load()
        if not contents.variables:
            raise SignalError(f"{label}: there are no variables in this file; give another one")
        return signals_of(label, contents)
    except MemoryError as error:
        raise SignalError(f"{label}: does not fit in memory; split it, for example by time") from error


def _load(path: Path, stack: ExitStack) -> "Contents":
    if path.is_file():
        with path.open("rb") as file:
            grib_magic = file.read(4) == b"GRIB"
        if grib_magic or path.suffix.lower() in GRIB_EXTENSIONS:
            from inrcodec.signals import grib

            return grib.load(path)
    if path.is_dir() and path.suffix.lower() == ZARR:
        from inrcodec.signals import climate_zarr

        return climate_zarr.load(path, stack)
    from inrcodec.signals import climate_files

    return climate_files.load(path, stack)


def exact_reader(
    name: str, attributes: dict[str, Any], stored: tuple[int, ...], shape: tuple[int, ...], dtype: np.dtype
) -> Callable[[np.ndarray, int], np.ndarray]:
    """Return what corrects decoded values: within the file's extremes and zero where the file has zeros.

    The encoder's bound holds for them, too: no value gets further away from the original one.

    name, attributes: of the signal. stored, shape: of the original and of the decoded grid, (S, H, W). dtype: of the
    values.
    Returns a function of values [n, H, W, 1] and the index of their first slice. It is fast in ascending order.
    Raises: SignalError if the signal's attributes are malformed, as does the function that is returned.
    """
    from inrcodec.signals.cf_exact import ExactValues

    def told(error: Exception) -> SignalError:
        return SignalError(f"the limits or zeros of variable {name!r} are malformed ({error!r})")

    try:
        exact = ExactValues(attributes, stored, shape, dtype)
    except MALFORMED as error:
        raise told(error) from error

    def apply(values: np.ndarray, begin: int) -> np.ndarray:
        try:
            return exact.apply(values, begin)
        except MALFORMED as error:
            raise told(error) from error

    return apply


def stored_step(signal: AnySignal) -> float:
    """Return the step between packed values, 0 for a variable that is not packed into integers."""
    from inrcodec.signals.cf_fields import field_of

    try:
        packing = field_of(signal).packing
    except (SignalError, *MALFORMED):
        return 0.0
    return abs(packing.scale or 0.0) if packing.number.kind in "iu" else 0.0


def read_back(part: Signal) -> np.ndarray:
    """Return the values [n, H, W, 1] that are read where these were written; any where they are missing.

    part: some slices of a signal, or all, corrected by `exact_reader`. One that cannot be written keeps its values.
    """
    from inrcodec.signals.cf_fields import field_of
    from inrcodec.signals.cf_packing import pack, unpack

    try:
        packing = field_of(part).packing
        return unpack(pack(part.name, part.values[..., 0], None, None, packing), packing)[0][..., np.newaxis]
    except (SignalError, *MALFORMED):
        return part.values


def write(signals: Sequence[AnySignal], path: Path) -> None:
    """Write a NetCDF-4 file or a Zarr store that holds these signals and what the first one's attributes say of it.

    Signals without attributes become variables on (slice,) latitude, longitude. Values are written as they are: those
    that were decoded have been corrected by `exact_reader`. They are read part by part.

    Raises: SignalError if the signals contradict each other or the file cannot be written.
    """
    from inrcodec.signals.cf_fields import regions_of
    from inrcodec.signals.cf_writing import contents_of

    if not signals:
        raise SignalError(f"{path}: no signals to write")
    with malformed(f"{path}: the signals' attributes"):
        contents, fields = contents_of(signals)
        numbers = {name: regions_of(field) for name, field in fields.items()}

    def regions(name: str) -> Iterator["tuple[Key, np.ndarray]"]:
        with malformed(f"{path}: the attributes of variable {name!r}"):
            yield from numbers[name]

    store = path.suffix.lower() == ZARR
    module = importlib.import_module(f"inrcodec.signals.{'climate_zarr' if store else 'climate_files'}")
    module.save(contents, path, {name: regions(name) for name in fields})


def check(signal: AnySignal) -> None:
    """Look at what stands for missing values, which decoding does not. Raises: SignalError if it is malformed."""
    from inrcodec.signals.cf_exact import GapNumbers
    from inrcodec.signals.cf_fields import field_of

    if "gaps" in signal.attributes:
        with malformed(f"what stands for missing values of variable {signal.name!r}"):
            GapNumbers(signal.attributes["gaps"], field_of(signal).packing, signal.samples).check()


def in_order_of(signal: AnySignal, other: AnySignal) -> AnySignal:
    """Return a signal with its slices in the order in which those of another of the same variable come.

    Raises: SignalError if attributes are malformed.
    """
    from inrcodec.signals import cf_fields

    with malformed(f"the attributes of variable {other.name!r}"):
        return cf_fields.in_order_of(signal, other)


@contextmanager
def malformed(what: str) -> Iterator[None]:
    """Turn the errors that malformed attributes lead to into a SignalError. what: these attributes, in words."""
    try:
        yield
    except MALFORMED as error:
        raise SignalError(f"{what} are malformed ({error!r})") from error
