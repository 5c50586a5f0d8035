"""Numbers of JAX: what goes out reads back as the same number in its own precision."""

import pytest

from katib_callbacks import MetricValueError
from katib_callbacks.metrics import format_value, to_number

jnp = pytest.importorskip("jax.numpy")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_scalars_go_out_in_their_own_precision(dtype):
    for value in (jnp.array(0.9, dtype), jnp.array([0.9], dtype), jnp.array([[0.9]], dtype)):
        assert format_value(to_number("loss", value)) == "0.9"


def test_integers_go_out_as_they_are():
    assert format_value(to_number("epoch", jnp.array(7))) == "7"


def test_a_deleted_array_is_refused():
    deleted = jnp.array(0.9)
    deleted.delete()

    with pytest.raises(MetricValueError, match=r"metric 'loss': a .* cannot be read as a number"):
        to_number("loss", deleted)


@pytest.mark.parametrize("value", [[0.1, 0.2], [], True])
def test_what_is_no_scalar_is_refused(value):
    with pytest.raises(MetricValueError, match=r"metric 'loss': a .* not a (scalar|number)"):
        to_number("loss", jnp.array(value))
