"""The coded residual: the bound, the rate, and a symbol-by-symbol decoder written from docs/FORMAT.md."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inrcodec.coding import entropy
from inrcodec.errors import CorruptFile
from inrcodec.residual.section import apply_residual, pack_residual

DTYPES = ["<f2", "<f4", "<f8", ">f4", "u1", "i1", "<u2", "<i2", "<u4", "<i4"]
SHAPES = [(1, 1), (7, 1), (1, 1, 1), (5, 9, 1), (3, 4, 6, 2), (2, 1, 1, 5, 3), (1, 17, 1), (16, 1, 1)]


def deviation(values: np.ndarray, original: np.ndarray) -> np.ndarray:
    return np.abs(values.astype(np.float64) - original.astype(np.float64))


def to_dtype(values: np.ndarray, dtype: str) -> np.ndarray:
    """Return finite values of a type, clipped to what it holds."""
    if np.dtype(dtype).kind == "f":
        limit = float(np.finfo(dtype).max)
        return values.clip(-limit, limit).astype(dtype)
    return np.rint(values).clip(np.iinfo(dtype).min, np.iinfo(dtype).max).astype(dtype)


def smooth(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Return a random field [*shape, 1] of standard deviation 1, correlated over some 8 points."""
    frequencies = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.fftfreq(shape[1]))
    field = np.fft.ifft2(np.fft.fft2(rng.normal(size=shape)) * np.exp(-((8 * frequencies) ** 2))).real
    return (field / field.std())[..., None]


def zeroth_order_bits(symbols: np.ndarray) -> float:
    counts = np.unique(symbols, return_counts=True)[1]
    return float(-(counts * np.log2(counts / symbols.size)).sum())


@settings(deadline=None, max_examples=300)
@given(
    dtype=st.sampled_from(DTYPES),
    shape=st.sampled_from(SHAPES),
    offset=st.sampled_from([0.0, 1.0, 280.0, -1e5, 3e9]),
    spread=st.integers(-12, 9),
    error=st.integers(-12, 9),
    tails=st.sampled_from([0.1, 1.0, 4.0]),
    bound=st.floats(-12, 6).map(lambda exponent: 10.0**exponent),
    masked=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_bound_holds(
    dtype: str,
    shape: tuple[int, ...],
    offset: float,
    spread: int,
    error: int,
    tails: float,
    bound: float,
    masked: bool,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    exact = offset + 10.0**spread * rng.normal(size=shape)
    original = to_dtype(exact, dtype)
    decoded = to_dtype(exact + 10.0**error * rng.normal(size=shape) * np.exp(tails * rng.normal(size=shape)), dtype)
    missing = rng.random(shape[:-1]) < 0.3 if masked else None
    before = decoded.copy()
    payload = pack_residual(original, decoded, bound, missing)
    result = apply_residual(decoded, payload, bound)
    assert (result.dtype, result.shape) == (decoded.dtype, decoded.shape)
    assert (decoded == before).all()
    matters = np.ones(shape[:-1], bool) if missing is None else ~missing
    assert (deviation(result, original) <= bound)[matters].all()


@settings(deadline=None, max_examples=150)
@given(data=st.data(), dtype=st.sampled_from(["<f2", "<f4", "<f8", "u1", "<i4", "<u4"]))
def test_the_bound_holds_for_any_values(data: st.DataObject, dtype: str) -> None:
    if np.dtype(dtype).kind == "f":
        values = st.floats(width=8 * np.dtype(dtype).itemsize, allow_nan=False, allow_infinity=False)
    else:
        values = st.integers(np.iinfo(dtype).min, np.iinfo(dtype).max)
    pairs = data.draw(st.lists(st.tuples(values, values), min_size=1, max_size=12))
    bound = data.draw(st.floats(1e-12, 1e6) | st.floats(2.0**-1000, 2.0**1000))
    original, decoded = (np.array(side, dtype).reshape(1, -1, 1) for side in zip(*pairs, strict=True))
    result = apply_residual(decoded, pack_residual(original, decoded, bound), bound)
    with np.errstate(over="ignore"):
        assert (deviation(result, original) <= bound).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_nothing_to_correct_costs_nothing(dtype: str) -> None:
    constant = np.full((4, 5, 1), 7, dtype)
    assert pack_residual(constant, constant, 1e-12) == b""
    assert pack_residual(constant, np.full_like(constant, 9), 2.0) == b""
    assert (apply_residual(constant, b"", 1e-12) == constant).all()


def test_missing_points_cost_nothing() -> None:
    decoded = np.zeros((6, 7, 2), np.float32)
    original = decoded.copy()
    missing = np.zeros((6, 7), bool)
    missing[2:4, 3] = True
    original[missing] = [np.nan, 1e30]
    assert pack_residual(original, decoded, 0.5, missing) == b""
    original[0, 0, 1] = 3
    result = apply_residual(decoded, pack_residual(original, decoded, 0.5, missing), 0.5)
    assert (deviation(result, original)[~missing] <= 0.5).all()


def test_a_bound_finer_than_the_type_is_lossless_at_the_rate_of_the_type() -> None:
    rng = np.random.default_rng(1)
    original = (280 + smooth(rng, (64, 64))).astype(np.float32)  # 3e-5 apart
    decoded = (original + 0.01 * rng.normal(size=original.shape)).astype(np.float32)
    payload = pack_residual(original, decoded, 1e-12)
    assert (apply_residual(decoded, payload, 1e-12) == original).all()
    spacings = np.rint((original.astype(np.float64) - decoded) * 2**15)
    assert 8 * len(payload) < 1.02 * original.size * math.log2(spacings.std() * math.sqrt(2 * math.pi * math.e)) + 800


def test_integers_within_half_are_lossless() -> None:
    rng = np.random.default_rng(2)
    original = rng.integers(0, 256, (20, 30, 3)).astype(np.uint8)
    decoded = (original + rng.normal(0, 2, original.shape)).clip(0, 255).astype(np.uint8)
    assert (apply_residual(decoded, pack_residual(original, decoded, 0.5), 0.5) == original).all()


def test_values_that_no_step_reaches_are_stored() -> None:
    original = np.array([1e-3, 1e30, -1e300, np.nan, np.inf, 5e-324, 280.0])[:, None]
    decoded = np.array([0.0, -1e30, 1e300, 1.0, 2.0, 1e9, 279.0])[:, None]
    result = apply_residual(decoded, pack_residual(original, decoded, 1e-6), 1e-6)
    assert np.array_equal(result[1:5], original[1:5], equal_nan=True)
    within = [0, 5, 6]
    assert (deviation(result[within], original[within]) <= 1e-6).all()


def test_a_base_that_differs_slightly_stays_within_the_bound() -> None:
    rng = np.random.default_rng(3)
    original = (280 + smooth(rng, (40, 50))).astype(np.float32)
    decoded = (original + 0.5 * rng.normal(size=original.shape)).astype(np.float32)
    payload = pack_residual(original, decoded, 0.1)
    for towards in (-np.inf, np.inf):
        nearby = np.nextafter(decoded, np.float32(towards))
        assert (deviation(apply_residual(nearby, payload, 0.1), original) <= 0.1).all()


def test_sparse_outliers_are_cheap() -> None:
    rng = np.random.default_rng(4)
    outliers = rng.random((256, 512, 1)) < 1e-3
    decoded = rng.normal(0, 0.2, outliers.shape).clip(-0.9, 0.9)
    original = np.where(outliers, decoded + rng.choice([-1.5, 1.5], outliers.shape), decoded)
    bits = 8 * len(pack_residual(original, decoded, 1.0))
    assert bits < 0.015 * original.size


@pytest.mark.parametrize(("bound", "share"), [(1.5, 0.6), (0.5, 0.65), (0.05, 0.5)])
def test_clustered_errors_beat_the_zeroth_order_entropy(bound: float, share: float) -> None:
    rng = np.random.default_rng(5)
    original = smooth(rng, (128, 256))
    decoded = np.zeros_like(original)
    bits = 8 * len(pack_residual(original, decoded, bound))
    assert bits < share * zeroth_order_bits(np.rint(original / (2 * bound)))


def test_payload_of_the_first_version() -> None:
    """Never to be changed: what it decodes to is the format."""
    original, decoded = golden_pair()
    payload = bytes.fromhex(GOLDEN)
    assert (apply_residual(decoded, payload, 2.0) == naive_apply(decoded, payload, 2.0)).all()
    assert (deviation(apply_residual(decoded, payload, 2.0), original) <= 2).all()


@pytest.mark.parametrize("arguments", [{"bound": 0.0}, {"bound": math.nan}, {"bound": math.inf}, {"bound": -1.0}])
def test_other_bounds_are_refused(arguments: dict[str, float]) -> None:
    values = np.zeros((2, 2, 1), np.float32)
    with pytest.raises(ValueError, match="bound must lie"):
        pack_residual(values, values, **arguments)
    with pytest.raises(ValueError, match="bound must lie"):
        apply_residual(values, b"", **arguments)


def test_other_arrays_are_refused() -> None:
    values = np.zeros((2, 2, 1), np.float32)
    for wrong in (values.astype(np.int64), values.astype(complex), values[0, 0], values[:0]):
        with pytest.raises(ValueError, match="values must be"):
            pack_residual(wrong, wrong, 1.0)
    with pytest.raises(ValueError, match="differ"):
        pack_residual(values, values.astype(np.float64), 1.0)
    with pytest.raises(ValueError, match="mask"):
        pack_residual(values, values, 1.0, np.zeros((2, 2, 1), bool))


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_damaged_payloads_are_refused_or_decode_to_something(data: st.DataObject) -> None:
    payload = bytearray(bytes.fromhex(GOLDEN))
    for _ in range(data.draw(st.integers(1, 3))):
        payload[data.draw(st.integers(0, len(payload) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    cut = data.draw(st.none() | st.integers(1, len(payload)))
    check_hostile(bytes(payload[:cut]))


@settings(deadline=None, max_examples=200)
@given(st.binary(min_size=1, max_size=200), st.booleans())
def test_hostile_payloads_are_refused_or_decode_to_something(content: bytes, with_length: bool) -> None:
    check_hostile(bytes([min(len(content), 127)]) + content if with_length else content)


def check_hostile(payload: bytes) -> None:
    _, decoded = golden_pair()
    try:
        result = apply_residual(decoded, payload, 2.0)
    except CorruptFile as error:
        assert "\n" not in str(error)
    else:
        assert (result.dtype, result.shape) == (decoded.dtype, decoded.shape)


def test_payloads_of_another_length_are_refused() -> None:
    _, decoded = golden_pair()
    payload = bytes.fromhex(GOLDEN)
    for wrong in (payload + b"\0", payload[:-1], b"\xff" * 6, b"\x05ab"):
        with pytest.raises(CorruptFile):
            apply_residual(decoded, wrong, 2.0)


@pytest.mark.parametrize(
    ("shape", "scale", "bound"),
    [
        ((9, 14, 1), 1.0, 2.0),
        ((2, 11, 6, 2), 30.0, 0.5),
        ((23, 1), 1e5, 0.01),
        ((12, 13, 1), 1e13, 1e-3),
        ((21, 13, 9, 1), 9.0, 0.5),
    ],
)
def test_against_a_decoder_of_one_symbol_at_a_time(shape: tuple[int, ...], scale: float, bound: float) -> None:
    rng = np.random.default_rng(6)
    original = 100 + scale * np.cumsum(rng.normal(size=shape), axis=-2) * np.exp(rng.normal(size=shape))
    if len(shape) == 4:  # a series, whose slices see each other
        original += 1e2 * np.cumsum(rng.normal(size=shape), axis=0)
    decoded = np.full(shape, 100.0)
    payload = pack_residual(original, decoded, bound)
    assert (apply_residual(decoded, payload, bound) == naive_apply(decoded, payload, bound)).all()


def golden_pair() -> tuple[np.ndarray, np.ndarray]:
    """Return integers whose errors rise to the right; one beyond what symbols reach."""
    y, x = np.mgrid[:6, :9]
    decoded = np.zeros((6, 9, 1), np.float64)
    original = (np.where((7 * y + 5 * x) % 11 < 4, x * x, x) * (-1.0) ** (y // 2))[..., None]
    original[4, 2] = 1e200
    return original, decoded


GOLDEN = "2700ffffda7ff48d549f8dac81501bfe54019646a6d31a77fc25d2efb2b31349e41d8e45a6b128035a62d7d718e77469"


def naive_apply(decoded: np.ndarray, payload: bytes, bound: float) -> np.ndarray:
    """Apply docs/FORMAT.md, "Residual", to floats: points one at a time, in Python integers."""
    length, position = 0, 0
    while True:
        length |= (payload[position] & 127) << (7 * position)
        position += 1
        if payload[position - 1] < 128:
            break
    decoder = entropy.Decoder(payload[position : position + length])
    uncoded = payload[position + length :]
    bits = [byte >> i & 1 for byte in uncoded for i in range(8)]
    used_bits = 0

    def take(rows: list[int]) -> list[int]:
        nonlocal used_bits
        shifts = [max(0, -(-(row - 48) // 4)) for row in rows]
        table_rows = [row - 4 * shift for row, shift in zip(rows, shifts, strict=True)]
        symbols = decoder.decode(np.array(table_rows, np.int64)).tolist()
        for shift in range(1, max(shifts, default=0) + 1):
            for i in range(len(symbols)):
                if shifts[i] == shift:
                    digits = bits[used_bits : used_bits + shift]
                    used_bits += shift
                    symbols[i] = symbols[i] * 2**shift + sum(digit << k for k, digit in enumerate(digits))
        return symbols

    gap = 12 - take([20])[0]
    channels, width = decoded.shape[-1], decoded.shape[-2]
    height = decoded.shape[-3] if decoded.ndim > 2 else 1
    count = decoded.size // (height * width * channels)
    symbols: dict[tuple[int, int, int, int], int] = {}
    phases = [
        ((0, 0), [], [], 24),
        ((1, 1), [(1, 1), (1, 3), (3, 1)], [3, 0, 0], 7),
        ((0, 1), [(0, 1), (1, 0), (0, 3), (3, 0), (1, 2), (2, 1)], [2, 2, 0, 0, 1, 1], 9),
        ((1, 0), [(0, 1), (1, 0), (1, 1), (0, 3), (3, 0)], [2, 2, 1, 0, 0], 6),
    ]
    weights = {(n, sees): [0] * (len(phases[n][1]) + 8 * sees) for n in range(4) for sees in (0, 1)}
    rows = {
        (n, sees): [max(14, phases[n][3] + 2 * (each // 4)) for each in range(276)] for n in range(4) for sees in (0, 1)
    }

    def beside(group: tuple[int, int]) -> set[tuple[int, int]]:
        dy, dx = group
        return {(dy, dx), (-dy, dx), (dy, -dx), (-dy, -dx)}

    def decode_phase(number: int, sees: int, points: list[tuple[int, int, int, int]], stride: int, far: int) -> None:
        _, groups, activities, _ = phases[number]
        own_weights, own_rows = weights[number, sees], rows[number, sees]
        if take([20]) == [1]:
            for i, change in enumerate(take([38] * len(own_weights))):
                own_weights[i] += change

        def predict(t: int, c: int, y: int, x: int) -> tuple[int, int]:
            """Return prediction and class of a point."""

            def at(time: int, dy: int, dx: int) -> int:
                return symbols.get((time, c, y + dy * stride, x + dx * stride), 0)

            before = t - far
            after = t + far if t + far < count else before
            earlier = t - 3 * far if t >= 3 * far else before
            later = t + 3 * far if t + 3 * far < count else after

            def both(dy: int, dx: int) -> int:
                return at(before, dy, dx) + at(after, dy, dx) if sees else 0

            def beyond(dy: int, dx: int) -> int:
                return at(earlier, dy, dx) + at(later, dy, dx) - both(dy, dx)

            features = []
            for sums in (both, beyond) if sees else ():
                features.append(sums(0, 0))
                for group in ((0, 1), (1, 0), (1, 1)):
                    features.append(sum(sums(*place) - sums(0, 0) for place in beside(group)))
            sides = [[2 * at(t, *place) - both(*place) for place in beside(group)] for group in groups]
            for side in sides:
                ratio = len(side) // len(sides[0]) if side is not sides[0] else 0
                features.append(sum(side) - ratio * sum(sides[0]))
            centre = both(0, 0)
            total = 128 * centre + sum(weight * each for weight, each in zip(own_weights, features, strict=True))
            rounded = (total + 128) // 256
            prediction = max(-(2**28), min(2**28, rounded))
            activity = abs(at(before, 0, 0) - at(after, 0, 0)) if sees else 0
            for a, side in zip(activities, sides, strict=True):
                activity += a * sum(abs(value - (2 * prediction - centre)) for value in side)
            activity //= 2
            half_octave = 0
            if activity:
                octave = activity.bit_length() - 1
                half_octave = 2 * octave + 1 + (2 * activity >= 3 * 2**octave)
            return prediction, 4 * half_octave + min(3, abs(total - 256 * rounded) // 32)

        predictions, classes = zip(*(predict(*point) for point in points), strict=True)
        occurring = sorted(set(classes))
        for each, change in zip(occurring, take([20] * len(occurring)), strict=True):
            own_rows[each] += change
        differences = take([own_rows[each] for each in classes])
        for point, prediction, difference in zip(points, predictions, differences, strict=True):
            symbols[point] = prediction + difference

    levels = 0
    while 2**levels < max(height, width):
        levels += 1
    for far in (16, 8, 4, 2, 1):
        times = range(0, count, 16) if far == 16 else range(far, count, 2 * far)
        if not times:
            continue
        sees = take([20])[0] if far < 16 else 0
        for level in reversed(range(levels + 1)):
            stride = 2**level
            for number in [0] if level == levels else [1, 2, 3]:
                oy, ox = phases[number][0]
                points = [
                    (t, c, y, x)
                    for t in times
                    for c in range(channels)
                    for y in range(oy * stride, height, 2 * stride)
                    for x in range(ox * stride, width, 2 * stride)
                ]
                if points:
                    decode_phase(number, sees, points, stride, far)

    mantissa, exponent = math.frexp(bound)
    spacings = math.floor(2 * mantissa * 2.0**gap)
    step = (2 * spacings + 1) * 2.0 ** (exponent - 1 - gap) * (1 - 2.0**-10)
    result = decoded.astype(np.float64).copy()
    for (t, c, y, x), symbol in symbols.items():
        if symbol:
            result.reshape(-1, height, width, channels)[t, y, x, c] += symbol * step
    stored = take([0])[0]
    place = -1
    if stored:
        places = [place := place + 1 + skipped for skipped in take([take([24])[0]] * stored)]
        size = decoded.dtype.itemsize
        values = np.frombuffer(uncoded[-(-used_bits // 8) :], decoded.dtype.newbyteorder("<"))
        assert len(values) * size == stored * size
        result.reshape(-1)[places] = values
    decoder.finish()
    return result.astype(decoded.dtype)
