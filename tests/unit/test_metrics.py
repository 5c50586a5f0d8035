"""Numbers, names and timestamps. What needs numpy or torch stands in tests/frameworks."""

import math
import struct
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from katib_callbacks import MetricLog, MetricValueError, StoredMetricLog
from katib_callbacks.metrics import (
    MAX_NAME_CHARACTERS,
    check_name,
    format_timestamp,
    format_value,
    name_problem,
    parse_timestamp,
    text_problem,
    to_number,
)

NOON = datetime(2026, 1, 31, 12, 0, 0, 123456, tzinfo=timezone.utc)


class Array:
    """What torch, numpy and JAX have in common, without them."""

    def __init__(self, items, dtype="float64"):
        self.items, self.dtype = items, dtype

    @property
    def size(self):
        return len(self.items)

    def item(self):
        return self.items[0]


class Tensor(Array):
    """As torch has it: ``size`` is a method, and reading needs ``detach``."""

    size = None

    def numel(self):
        return len(self.items)

    def detach(self):
        return Array(self.items, self.dtype)


class EagerTensor:
    """As TensorFlow has it: no ``item``, but ``numpy``."""

    def __init__(self, array):
        self.array, self.dtype = array, f"<dtype: '{array.dtype}'>"

    def numpy(self):
        return self.array


class Unreadable:
    dtype = "float32"

    def item(self):
        raise RuntimeError("Tensor.item() cannot be called on meta tensors\nand a long explanation")


class Indexable:
    def __index__(self):
        return 7


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (0.9, 0.9),
        (3, 3.0),
        (-0.0, -0.0),
        (math.inf, math.inf),
        (Fraction(1, 4), 0.25),
        (Decimal("0.1"), 0.1),
        (Indexable(), 7.0),
        (Array([0.5]), 0.5),
        (Array([4], "int64"), 4.0),
        (Tensor([0.5], "torch.float64"), 0.5),
        (EagerTensor(Array([0.5])), 0.5),
    ],
)
def test_scalars_become_numbers(value, number):
    result = to_number("loss", value)

    assert type(result) is float
    assert struct.pack("d", result) == struct.pack("d", number)  # tells -0.0 from 0.0


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        (True, "a bool is not a number (True)"),
        ("0.9", "a str is not a number ('0.9')"),
        (b"0.9", "a bytes is not a number"),
        (None, "a NoneType is not a number"),
        (1j, "a complex is not a number"),
        ([0.9], "a list is not a number"),
        ({"a": 1}, "a dict is not a number"),
        (object(), "a object is not a number"),
        (10**400, "a int cannot be read as a number: int too large to convert to float"),
        (Decimal("sNaN"), "a decimal Decimal cannot be read as a number"),
        (Array([]), "Array with 0 elements is not a scalar"),
        (Array([0.1, 0.2]), "Array with 2 elements is not a scalar"),
        (Tensor([0.1, 0.2]), "Tensor with 2 elements is not a scalar"),
        (EagerTensor(Array([0.1, 0.2])), "EagerTensor with 2 elements is not a scalar"),
        (Array([True], "bool"), "Array holding a bool is not a number"),
        (Array(["x"], "str"), "Array holding a str is not a number"),
        (Array([1j], "complex64"), "Array holding a complex is not a number"),
        (Array([None], "object"), "Array holding a NoneType is not a number"),
        (Unreadable(), "Unreadable cannot be read as a number: Tensor.item() cannot be called on meta tensors"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_is_no_scalar_is_refused_by_name(value, complaint):
    with pytest.raises(MetricValueError) as caught:
        to_number("val_loss", value)

    message = str(caught.value)
    assert message.startswith("metric 'val_loss': ")
    assert complaint in message
    assert "\n" not in message


def test_a_huge_value_does_not_make_a_huge_message():
    with pytest.raises(MetricValueError) as caught:
        to_number("loss", "x" * 10_000)

    assert len(str(caught.value)) < 200


def as_float32(number):
    return struct.unpack("f", struct.pack("f", number))[0]


def as_float16(number):
    return struct.unpack("e", struct.pack("e", number))[0]


@given(st.floats(width=32, allow_nan=False))
def test_a_float32_reads_back_as_itself_from_at_most_nine_digits(value):
    text = format_value(to_number("loss", Tensor([value], "torch.float32")))

    assert struct.pack("f", float(text)) == struct.pack("f", value)
    assert significant_digits(text) <= 9


@given(st.floats(width=16, allow_nan=False))
def test_a_float16_reads_back_as_itself_from_at_most_five_digits(value):
    text = format_value(to_number("loss", Array([value], "float16")))

    assert struct.pack("e", float(text)) == struct.pack("e", value)
    assert significant_digits(text) <= 5


@given(st.integers(0, 0xFFFF))
def test_a_bfloat16_reads_back_as_itself_from_at_most_four_digits(bits):
    value = struct.unpack("<f", struct.pack("<I", bits << 16))[0]

    text = format_value(to_number("loss", Tensor([value], "torch.bfloat16")))

    read = struct.unpack("<I", struct.pack("<f", float(text)))[0] if math.isfinite(value) else bits << 16
    assert (read + 0x7FFF + (read >> 16 & 1)) >> 16 == bits
    assert significant_digits(text) <= 4
    assert math.isnan(float(text)) == math.isnan(value)


@given(st.floats())
def test_a_float64_reads_back_as_itself(value):
    for given_value in (value, Array([value], "float64")):
        text = format_value(to_number("loss", given_value))
        assert float(text) == value or math.isnan(value)


@given(st.decimals(-9999, 9999, places=3))
def test_decimals_that_a_person_writes_survive_float32(number):
    value = as_float32(float(number))

    assert Decimal(format_value(to_number("loss", Tensor([value], "torch.float32")))) == number


def significant_digits(text):
    return len(Decimal(text).normalize().as_tuple().digits) if math.isfinite(float(text)) else 0


@pytest.mark.parametrize(
    ("number", "dtype", "text"),
    [
        (as_float32(0.9), "torch.float32", "0.9"),
        (as_float32(0.1), "float32", "0.1"),
        (as_float32(16777216.0), "float32", "16777216"),
        (as_float32(3.4028234663852886e38), "float32", "3.4028235e+38"),
        (as_float32(1e-45), "float32", "1e-45"),
        (as_float16(0.9), "float16", "0.9"),
        (65504.0, "torch.float16", "65500"),
        (0.8984375, "torch.bfloat16", "0.9"),
        (0.8984375, "bfloat16", "0.9"),
        (0.8984375, "float32", "0.8984375"),
        (as_float32(0.9), "float64", "0.8999999761581421"),
    ],
)
def test_a_number_goes_out_in_its_own_precision(number, dtype, text):
    assert format_value(to_number("loss", Array([number], dtype))) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [(0.9, "0.9"), (5.0, "5"), (-0.0, "-0"), (1e-7, "1e-07"), (1e22, "1e+22"), (123456789.25, "123456789.25")],
)
def test_values_are_the_shortest_decimals(number, text):
    assert format_value(number) == text


@pytest.mark.parametrize(("number", "text"), [(math.nan, "nan"), (math.inf, "inf"), (-math.inf, "-inf")])
def test_values_that_are_not_finite_have_one_spelling(number, text):
    assert format_value(number) == text


@pytest.mark.parametrize("name", ["loss", "val/dataloader_idx_0", "损失", "a" * MAX_NAME_CHARACTERS, " ", "a\nb"])
def test_names_that_katib_holds_are_taken(name):
    assert check_name(name) == name


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("", "is empty"),
        ("a" * 256, "has 256 characters; Katib stores at most 255"),
        ("a\0b", "has a NUL character"),
        ("a\ud800b", "has a lone surrogate"),
        (None, "must be a str, not NoneType"),
        (b"loss", "must be a str, not bytes"),
    ],
)
def test_names_that_katib_cannot_hold_are_refused(name, complaint):
    with pytest.raises(MetricValueError, match=complaint):
        check_name(name)
    with pytest.raises(MetricValueError, match=complaint):
        MetricLog(name, 0.5, NOON)


def test_problems_are_phrases_for_any_message():
    assert name_problem("loss") is None
    assert text_problem("") is None
    assert text_problem("a\0") == "has a NUL character, which PostgreSQL cannot store"


def test_a_metric_log_holds_a_number_and_utc():
    log = MetricLog("loss", Tensor([as_float32(0.9)], "torch.float32"), NOON.astimezone(timezone(timedelta(hours=5))))

    assert log == MetricLog("loss", 0.9, NOON)
    assert log.timestamp.utcoffset() == timedelta(0)


@pytest.mark.parametrize("timestamp", [NOON.replace(tzinfo=None), "2026-01-31T12:00:00Z", None, 0.0])
def test_a_metric_log_needs_an_aware_timestamp(timestamp):
    with pytest.raises(MetricValueError, match="metric 'loss': the timestamp must be a timezone-aware datetime"):
        MetricLog("loss", 0.5, timestamp)


@pytest.mark.parametrize(
    "timestamp",
    [
        datetime.min.replace(tzinfo=timezone(timedelta(hours=1))),
        datetime.max.replace(tzinfo=timezone(timedelta(hours=-1))),
    ],
)
def test_a_timestamp_outside_the_calendar_in_utc_is_refused(timestamp):
    with pytest.raises(MetricValueError, match="metric 'loss': the timestamp"):
        MetricLog("loss", 0.5, timestamp)


def test_logs_cannot_be_changed():
    for log in (MetricLog("loss", 0.5, NOON), StoredMetricLog("loss", "unavailable", NOON)):
        with pytest.raises(AttributeError):
            log.name = "accuracy"


offsets = st.timedeltas(timedelta(hours=-23, minutes=-59), timedelta(hours=23, minutes=59)).map(
    lambda delta: timezone(timedelta(minutes=delta // timedelta(minutes=1)))
)
moments = st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 29), timezones=offsets)  # noqa: DTZ001  hypothesis adds it


@given(moments)
def test_a_timestamp_is_written_in_utc_with_six_digits_and_read_back(moment):
    text = format_timestamp(moment)

    assert len(text) == len("2026-01-31T12:00:00.123456Z")
    assert text.endswith("Z")
    assert parse_timestamp(text) == moment
    assert parse_timestamp(text).utcoffset() == timedelta(0)


@given(moments)
def test_any_offset_is_read(moment):
    assert parse_timestamp(moment.isoformat()) == moment


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-01-31T12:00:00.123456Z", NOON),
        ("2026-01-31T12:00:00.123456789Z", NOON),
        ("2026-01-31T12:00:00.12Z", NOON.replace(microsecond=120_000)),
        ("2026-01-31T12:00:00Z", NOON.replace(microsecond=0)),
        ("2026-01-31T14:30:00.123456+02:30", NOON),
        ("2026-01-30T22:00:00.123456-14:00", NOON),
        ("0001-01-01T00:00:00Z", datetime(1, 1, 1, tzinfo=timezone.utc)),
    ],
)
def test_the_forms_that_katib_reads_are_read(text, moment):
    assert parse_timestamp(text) == moment


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "2026-01-31",
        "2026-01-31T12:00:00",
        "2026-01-31 12:00:00Z",
        "2026-01-31t12:00:00z",
        "2026-01-31T12:00:00+0000",
        "2026-01-31T12:00Z",
        "2026-01-31T12:00:00.Z",
        "2026-01-31T24:00:00Z",
        "2026-02-30T12:00:00Z",
        "2026-01-31T12:00:60Z",
        "2026-01-31T12:00:00+24:00",
        "2026-01-31T12:00:00+02:60",
        "0000-01-01T00:00:00Z",
        "0001-01-01T00:00:00+01:00",
        "9999-12-31T23:59:59-01:00",
        "２０２６-01-31T12:00:00Z",  # noqa: RUF001  digits of another script
        "2026-01-31T12:00:00Z\n",
        "x" * 10_000,
    ],
)
def test_other_forms_are_refused(text):
    with pytest.raises(ValueError, match=r"is not an RFC 3339|impossible offset|is not a time") as caught:
        parse_timestamp(text)

    assert len(str(caught.value)) < 250


@pytest.mark.parametrize("exponent", range(-149, 128))
def test_a_power_of_two_goes_out_as_the_shortest_decimal_that_reads_back(exponent):
    """The gap below it is half of that above, so that the nearest decimal of more digits might not read back."""

    class Float32(float):
        dtype = "float32"

        def item(self):
            return float(self)

    number = 2.0**exponent
    decimals = (float(f"{number:.{digits}g}") for digits in range(1, 10))
    shortest = next(decimal for decimal in decimals if struct.unpack("f", struct.pack("f", decimal))[0] == number)
    assert to_number("loss", Float32(number)) == shortest
