"""Report to Katib from a training loop of your own: scikit-learn's digits, one pass over the data after another.

::

    python examples/plain_loop.py --learning-rate 0.01
"""

import argparse

from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split

from katib_callbacks import KatibReporter


def main() -> None:
    """Train once."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--learning-rate", type=float, default=0.01)
    parser.add_argument("--epochs", type=int, default=5)
    arguments = parser.parse_args()

    images, labels = load_digits(return_X_y=True)
    train_x, val_x, train_y, val_y = train_test_split(images / 16, labels, test_size=0.2, random_state=0)
    classifier = SGDClassifier("log_loss", learning_rate="constant", eta0=arguments.learning_rate, random_state=0)
    for epoch in range(arguments.epochs):
        classifier.partial_fit(train_x, train_y, classes=range(10))
        accuracy = classifier.score(val_x, val_y)
        print(f"epoch {epoch}: accuracy {accuracy:.4f}")

    with KatibReporter() as reporter:
        if reporter.idle_reason is not None:
            print(f"{reporter.idle_reason}: nothing is reported")
            return
        loss = log_loss(val_y, classifier.predict_proba(val_x))
        print(f"receipt: {reporter.report({'accuracy': accuracy, 'loss': loss})}")


if __name__ == "__main__":
    main()
