"""Train a small network on scikit-learn's digits with Keras 3, on any backend, and report to Katib.

By hand, outside a trial, it trains and says that it reports nothing::

    KERAS_BACKEND=jax python examples/keras_digits.py --learning-rate 0.01

As a trial, Katib sets KATIB_TRIAL_NAME, and the callback does the rest.
"""

import argparse
import logging
import os

os.environ.setdefault("KERAS_BACKEND", "torch")  # jax or tensorflow do as well; Keras reads it when it is imported

import keras
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from katib_callbacks.keras import KatibReportCallback


def digits_classifier(learning_rate: float, hidden_units: int) -> keras.Model:
    """Return a two-layer perceptron on 8x8 images."""
    layers = keras.layers
    model = keras.Sequential(
        [keras.Input((64,)), layers.Dense(hidden_units, activation="relu"), layers.Dense(10, activation="softmax")]
    )
    model.compile(keras.optimizers.Adam(learning_rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def main() -> None:
    """Train once."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--learning-rate", type=float, default=0.01)
    parser.add_argument("--hidden-units", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=5)
    arguments = parser.parse_args()

    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    keras.utils.set_random_seed(0)
    images, labels = load_digits(return_X_y=True)
    train_x, val_x, train_y, val_y = train_test_split(images / 16, labels, test_size=0.2, random_state=0)

    report = KatibReportCallback({"accuracy": "val_accuracy", "loss": "val_loss"})
    model = digits_classifier(arguments.learning_rate, arguments.hidden_units)
    history = model.fit(
        train_x,
        train_y,
        batch_size=64,
        epochs=arguments.epochs,
        validation_data=(val_x, val_y),
        verbose=0,
        callbacks=[report],
    ).history

    values = {name: round(series[-1], 4) for name, series in history.items()}
    print(f"trained {arguments.epochs} epochs on {keras.backend.backend()}: {values}")
    print(f"receipt: {report.receipt}")


if __name__ == "__main__":
    main()
