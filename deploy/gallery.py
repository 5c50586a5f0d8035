"""Make the pictures of docs/gallery.md from an experiment that is really run: ``python deploy/gallery.py``.

`nox -s gallery` has the packages; chromium and chromedriver have to be there. The experiment trains sixteen
small networks on scikit-learn's digits. A picture that has changed replaces the old one.
"""

import io
import json
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text
from selenium import webdriver

from katib_callbacks.cli.experiment.home import opened
from katib_callbacks.local.state.watch import Watch
from katib_callbacks.pictures.live import drawn

FOLDER = Path(__file__).parents[1] / "docs" / "gallery"
COMMAND = [sys.executable, "-m", "katib_callbacks.cli"]
COLORS = 128
"""Of a picture's palette: enough for screens, and a third of the bytes."""

SCREEN = """<meta charset="utf-8"><style>i {{ display: inline-block; width: 1ch; font-style: normal }}</style>
<body style="margin: 0; width: max-content; background: {background}; color: {foreground}">
<div style="font: bold 13px sans-serif; padding: 8px 12px; background: #3e3d32; white-space: pre">TITLE</div>
<pre style="font: 13px/1.25 'DejaVu Sans Mono', monospace; margin: 0; padding: 10px 12px">{code}</pre></body>"""
"""A terminal: rich puts code and colors in."""

NAME, TRIALS, EPOCHS = "digits", 16, 12
WIDE, NARROW = 1400, 420
WAIT_S = 600

TRAIN = f"""
import sys, time, warnings
warnings.simplefilter("ignore")
from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier
from katib_callbacks.recording.recorder import MetricRecorder

lr, hidden, optimizer = float(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
x, y = load_digits(return_X_y=True)
x = x / 16
model = MLPClassifier((hidden,), learning_rate_init=lr, solver=optimizer, random_state=1)
recorder = MetricRecorder(["accuracy", "loss"], report="history")
recorder.start(None)
recorder.begin_progress(lambda: 0.0)
for epoch in range(1, {EPOCHS} + 1):
    model.partial_fit(x[:1400], y[:1400], classes=list(range(10)))
    if lr > 0.05 and epoch == 5:
        sys.exit("the loss is too great: out of patience")
    accuracy = model.score(x[1400:], y[1400:])
    print(f"epoch {{epoch}}: accuracy {{accuracy:.3f}}, loss {{model.loss_:.3f}}", flush=True)
    if recorder.progress is not None:
        recorder.progress.show(epoch / {EPOCHS})
    recorder.record({{"accuracy": accuracy, "loss": model.loss_}}, row=(epoch, None, 0))
    time.sleep(0.3)  # so that there is an epoch to be seen
recorder.finish()
recorder.deliver()
"""
"""A loop of one's own in the place of a framework's: it imports in a second."""


def main() -> None:
    """Run the experiment, and make each picture."""
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, browser() as window:
        place = Path(folder)
        environ = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "100"}
        (place / "train.py").write_text(TRAIN)
        (place / "digits.json").write_text(json.dumps(experiment()))
        running = subprocess.Popen([*COMMAND, "experiment", "run", "digits.json"], cwd=place, env=environ)
        live = in_the_middle(place / "katib-local")
        running.wait()

        def said(*words: str) -> str:
            done = subprocess.run(
                [*COMMAND, *words], cwd=place, env=environ, capture_output=True, text=True, check=False
            )
            return done.stdout

        terminal(window, "live", "katib-callbacks experiment watch digits", live)
        status = said("experiment", "status", NAME)
        terminal(window, "status", "katib-callbacks experiment status digits", Text(status))
        curve = said("experiment", "logs", NAME, "--plot")
        terminal(window, "curves", "katib-callbacks experiment logs digits --plot", Text(curve))
        terminal(window, "doctor", "katib-callbacks doctor", Text(said("doctor")))
        said("experiment", "plot", NAME, "-o", "plots.png")
        save("plots", (place / "plots.png").read_bytes())
        with served(place, environ) as url:
            trial = next(word for word in status.split() if word.startswith(f"{NAME}-"))
            page(window, url, "page", f"/experiment/{NAME}", WIDE, "light")
            page(window, url, "page-dark", f"/experiment/{NAME}", WIDE, "dark")
            page(window, url, "page-narrow", f"/experiment/{NAME}", NARROW, "light")
            page(window, url, "trial", f"/trial/{trial}", WIDE, "light")
    for path in sorted(FOLDER.glob("*.png")):
        print(f"{path.stat().st_size:>8,} {path.name}")


def experiment() -> dict[str, Any]:
    """Return the experiment as Katib has it."""
    parameters = [
        {"name": "lr", "parameterType": "double"}
        | {"feasibleSpace": {"min": "0.0001", "max": "0.1", "distribution": "logUniform"}},
        {"name": "hidden", "parameterType": "int", "feasibleSpace": {"min": "4", "max": "48", "step": "4"}},
        {"name": "optimizer", "parameterType": "categorical", "feasibleSpace": {"list": ["adam", "sgd"]}},
    ]
    names = [one["name"] for one in parameters]
    container = {
        "name": "training",
        "command": ["python", "train.py", *(f"${{trialParameters.{name}}}" for name in names)],
    }
    job = {"apiVersion": "batch/v1", "kind": "Job", "spec": {"template": {"spec": {"containers": [container]}}}}
    return {
        "apiVersion": "kubeflow.org/v1beta1",
        "kind": "Experiment",
        "metadata": {"name": NAME},
        "spec": {
            "objective": {
                "type": "maximize",
                "objectiveMetricName": "accuracy",
                "additionalMetricNames": ["loss"],
            },
            "algorithm": {
                "algorithmName": "tpe",
                "algorithmSettings": [{"name": "random_state", "value": "4"}],
            },
            "metricsCollectorSpec": {"collector": {"kind": "Push"}},
            "parallelTrialCount": 2,
            "maxTrialCount": TRIALS,
            "maxFailedTrialCount": TRIALS,
            "parameters": parameters,
            "trialTemplate": {
                "primaryContainerName": "training",
                "trialParameters": [{"name": name, "reference": name} for name in names],
                "trialSpec": job,
            },
        },
    }


def in_the_middle(home: Path) -> Any:
    """Wait until most of the trials are over and one is in its epochs; return what `watch` draws then."""
    deadline_s = time.monotonic() + WAIT_S
    while time.monotonic() < deadline_s:
        time.sleep(0.05)
        if not (home / "katib.db").exists():
            continue
        with opened(home) as store:
            if not store.experiments():
                continue
            snapshot = Watch(store, home, NAME).look()
        if snapshot.done >= TRIALS // 2 and any((one.epoch or 0) >= EPOCHS // 4 for one in snapshot.running):
            return drawn(snapshot, 100, 30)
        if snapshot.is_over:
            break
    sys.exit("the experiment was not seen in its middle")


@contextmanager
def browser() -> Iterator[webdriver.Chrome]:
    """A headless Chromium."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or sys.exit("apt-get install chromium chromium-driver")
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--no-proxy-server",
        "--hide-scrollbars",
    ):
        options.add_argument(argument)
    window = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    window.set_page_load_timeout(WAIT_S)
    try:
        yield window
    finally:
        window.quit()


def shape(window: webdriver.Chrome, width: int, height: int, scheme: str = "light") -> None:
    """Give the window a size, and a scheme of colors."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    window.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    window.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def terminal(window: webdriver.Chrome, name: str, command: str, shown: Any) -> None:
    """Picture what a command has shown in a terminal of 100 columns."""
    console = Console(record=True, width=100, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(shown)
    text = console.export_html(theme=MONOKAI, inline_styles=True, code_format=SCREEN).replace("TITLE", f"$ {command}")
    text = re.sub("[\u2800-\u28ff]", r"<i>\g<0></i>", text)  # dots, which a font may have in a width of their own
    with tempfile.NamedTemporaryFile("w", suffix=".html", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        shape(window, 900, 300)
        window.get(Path(file.name).as_uri())
        size = window.execute_script(
            "const { width, height } = document.body.getBoundingClientRect(); return [width, height]"
        )
        shape(window, *map(math.ceil, size))
        save(name, window.get_screenshot_as_png())


@contextmanager
def served(place: Path, environ: dict[str, str]) -> Iterator[str]:
    """Serve the page, and yield the URL that the command prints."""
    process = subprocess.Popen([*COMMAND, "ui"], cwd=place, env=environ, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        for line in process.stdout:
            for word in line.split():
                if word.startswith("http://"):
                    yield word
                    return
        sys.exit("the page was not served")
    finally:
        process.terminate()
        process.wait()


def page(window: webdriver.Chrome, url: str, name: str, place: str, width: int, scheme: str) -> None:
    """Picture a place of the page."""
    shape(window, width, 900, scheme)
    window.get(url)
    window.get(f"{url.partition('?')[0]}#{place}")
    deadline_s = time.monotonic() + WAIT_S
    while time.monotonic() < deadline_s and not window.execute_script(
        "return document.querySelectorAll('svg, canvas').length"
    ):
        time.sleep(0.2)
    time.sleep(2)  # for the curves, which come after it
    height = window.execute_script("return document.documentElement.scrollHeight")
    shape(window, width, min(height, 1800), scheme)
    time.sleep(1)
    save(name, window.get_screenshot_as_png())


def save(name: str, picture: bytes) -> None:
    """Write a picture with few colors, unless it is the one that is there."""
    small = io.BytesIO()
    Image.open(io.BytesIO(picture)).convert("RGB").quantize(COLORS, dither=Image.Dither.NONE).save(
        small, "png", optimize=True
    )
    path = FOLDER / f"{name}.png"
    if not path.exists() or path.read_bytes() != small.getvalue():
        path.write_bytes(small.getvalue())


if __name__ == "__main__":
    main()
