"""What blocks of no framework name."""

accuracy, loss, epochs = 0.75, 0.25, 2


def train(parameters=None):
    from katib_callbacks import report_metrics  # noqa: PLC0415 - its source travels

    if parameters is not None:
        report_metrics({"loss": float(parameters["lr"])})
    return 0.25
