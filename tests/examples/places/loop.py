"""A loop of one's own."""

from katib_callbacks import KatibReporter


def main():
    with KatibReporter(timeout_s=60) as reporter:
        for epoch in range(2):
            accuracy = 0.25 * (epoch + 1)
            reporter.report_progress((epoch + 1) / 2, {"val_acc": accuracy})
        if reporter.idle_reason is None:
            reporter.report({"val_acc": accuracy})


if __name__ == "__main__":
    main()
