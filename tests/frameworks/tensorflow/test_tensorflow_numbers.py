"""Numbers of TensorFlow: what goes out reads back as the same number in its own precision."""

import pytest

from katib_callbacks import MetricValueError
from katib_callbacks.metrics import format_value, to_number

tf = pytest.importorskip("tensorflow")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_scalars_go_out_in_their_own_precision(dtype):
    for value in (tf.constant(0.9, dtype), tf.constant([0.9], dtype), tf.Variable([[0.9]], dtype=dtype)):
        assert format_value(to_number("loss", value)) == "0.9"


def test_integers_go_out_as_they_are():
    assert format_value(to_number("epoch", tf.constant(7))) == "7"


def test_a_symbolic_tensor_is_refused():
    refusals = []

    @tf.function(autograph=False)
    def trace(tensor):
        with pytest.raises(MetricValueError, match=r"metric 'loss': a .*Tensor .*") as refusal:
            to_number("loss", tensor)
        refusals.append(refusal.value)
        return tensor

    trace(tf.constant(0.9))
    assert len(refusals) == 1


@pytest.mark.parametrize("value", [[0.1, 0.2], [], True, "text", 1j])
def test_what_is_no_scalar_is_refused(value):
    with pytest.raises(MetricValueError, match=r"metric 'loss': .* not a (scalar|number)"):
        to_number("loss", tf.constant(value))
