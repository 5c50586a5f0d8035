"""Train on scikit-learn's digits in several TensorFlow workers, as a TFJob starts them, and report to Katib, once.

Each worker finds its place in TF_CONFIG; without that variable one process trains alone::

    pip install tensorflow tf_keras scikit-learn
    python examples/keras_multiworker.py --learning-rate 0.01

The model is tf_keras', because Keras 3 cannot fit under MultiWorkerMirroredStrategy. Metrics are those of all workers;
the first one reports them.
"""

import argparse
import logging

import tensorflow as tf

strategy = tf.distribute.MultiWorkerMirroredStrategy()  # before anything else of TensorFlow is used

import tf_keras  # noqa: E402  after the strategy, as above
from sklearn.datasets import load_digits  # noqa: E402
from sklearn.model_selection import train_test_split  # noqa: E402

from katib_callbacks.keras import KatibReportCallback  # noqa: E402


def main() -> None:
    """Train once."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--learning-rate", type=float, default=0.01)
    parser.add_argument("--hidden-units", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=5)
    arguments = parser.parse_args()

    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    tf_keras.utils.set_random_seed(0)
    images, labels = load_digits(return_X_y=True)
    train_x, val_x, train_y, val_y = train_test_split(images / 16, labels, test_size=0.2, random_state=0)
    train = tf.data.Dataset.from_tensor_slices((train_x, train_y)).shuffle(len(train_x), seed=0).batch(64)
    validation = tf.data.Dataset.from_tensor_slices((val_x, val_y)).batch(64)

    with strategy.scope():
        layers = tf_keras.layers
        model = tf_keras.Sequential(
            [layers.Dense(arguments.hidden_units, activation="relu", input_shape=(64,)), layers.Dense(10)]
        )
        loss = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(tf_keras.optimizers.Adam(arguments.learning_rate), loss, metrics=["accuracy"])
    report = KatibReportCallback({"accuracy": "val_accuracy", "loss": "val_loss"})
    model.fit(train, validation_data=validation, epochs=arguments.epochs, verbose=0, callbacks=[report])

    print(f"one of {strategy.num_replicas_in_sync}: receipt: {report.receipt}")


if __name__ == "__main__":
    main()
