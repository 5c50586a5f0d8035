"""Numbers of torch and numpy: what goes out reads back as the same number in its own precision."""

import math
from datetime import datetime, timezone

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from katib_callbacks import MetricLog, MetricValueError
from katib_callbacks.metrics import format_value, to_number

np = pytest.importorskip("numpy")
torch = pytest.importorskip("torch")

TORCH_TYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32, "float64": torch.float64}
NUMPY_TYPES = {"float16": np.float16, "float32": np.float32, "float64": np.float64}
DIGITS = {"float16": 5, "bfloat16": 4, "float32": 9, "float64": 17}


def significant_digits(text):
    return len(text.partition("e")[0].replace(".", "").strip("-").strip("0"))


@pytest.mark.parametrize("precision", TORCH_TYPES)
@given(number=st.floats(allow_nan=False))
@example(number=0.9)
@example(number=-0.0)
@example(number=math.inf)
def test_a_tensor_reads_back_as_itself(precision, number):
    dtype = TORCH_TYPES[precision]
    tensor = torch.tensor(number, dtype=torch.float64).to(dtype)

    text = format_value(to_number("loss", tensor))

    read = torch.tensor(float(text), dtype=torch.float64).to(dtype)
    assert torch.equal(read, tensor)
    assert torch.signbit(read) == torch.signbit(tensor)
    assert significant_digits(text) <= DIGITS[precision]


@pytest.mark.parametrize("precision", NUMPY_TYPES)
@given(number=st.floats(allow_nan=False))
@example(number=0.9)
def test_a_numpy_scalar_reads_back_as_itself(precision, number):
    dtype = NUMPY_TYPES[precision]
    with np.errstate(over="ignore"):
        scalar = dtype(number)
    for value in (scalar, np.array(scalar), np.array([[scalar]])):
        text = format_value(to_number("loss", value))
        assert dtype(text) == scalar
        assert significant_digits(text) <= DIGITS[precision]


@given(bits=st.integers(1, 2**31 - 1))
def test_float32_goes_out_as_short_as_numpy_writes_it(bits):
    scalar = np.uint32(bits).view(np.float32)
    if not np.isfinite(scalar) or np.frexp(scalar)[0] == 0.5:
        return  # below a power of two numbers lie closer than above: there one digit more may be written

    ours = format_value(to_number("loss", torch.from_numpy(np.array(scalar))))

    assert significant_digits(ours) == significant_digits(np.format_float_scientific(scalar, unique=True, trim="-"))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (torch.tensor(0.9), "0.9"),
        (torch.tensor([0.9]), "0.9"),
        (torch.tensor([[0.9]], requires_grad=True), "0.9"),
        (torch.tensor(0.9, dtype=torch.bfloat16), "0.9"),
        (torch.tensor(3), "3"),
        (torch.tensor(255, dtype=torch.uint8), "255"),
        (torch.nn.Parameter(torch.tensor(0.1)), "0.1"),
        (np.float32(0.1), "0.1"),
        (np.float64(0.1), "0.1"),
        (np.int64(7), "7"),
        (np.array(0.1, dtype=np.float16), "0.1"),
        (np.longdouble(0.5), "0.5"),
        (np.ma.array(0.1, mask=False, dtype=np.float32), "0.1"),
        (np.ma.array([0.1]).mean(), "0.1"),
    ],
    ids=repr,
)
def test_scalars_of_every_kind_go_out_as_a_person_writes_them(value, text):
    assert format_value(to_number("loss", value)) == text


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        (torch.tensor([0.1, 0.2]), "with 2 elements is not a scalar"),
        (torch.tensor([]), "with 0 elements is not a scalar"),
        (torch.tensor(True), "holding a bool"),
        (torch.tensor(1j), "holding a complex"),
        (torch.empty((), device="meta"), "cannot be read as a number"),
        (np.array([0.1, 0.2]), "with 2 elements is not a scalar"),
        (np.array([]), "with 0 elements is not a scalar"),
        (np.ma.masked, "is masked, so it has no value"),
        (np.ma.array([0.5], mask=True), "is masked, so it has no value"),
        (np.bool_(True), "holding a bool"),
        (np.complex64(1j), "holding a complex"),
        (np.str_("0.9"), "is not a number"),
        (np.datetime64("2026-01-31"), "is not a number"),
    ],
    ids=repr,
)
def test_what_is_no_number_is_refused(value, complaint):
    with pytest.raises(MetricValueError, match=f"metric 'loss': .*{complaint}"):
        to_number("loss", value)


def test_a_log_of_a_tensor_holds_a_float():
    log = MetricLog("loss", torch.tensor(0.9), datetime.now(timezone.utc))

    assert type(log.value) is float
    assert log.value == 0.9
