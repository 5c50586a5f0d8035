"""Reading experiments: Katib's defaults, what is kept, and what is refused with its path."""

import copy
from pathlib import Path

import pytest
import yaml
from homes import experiment

from katib_callbacks.errors import ConfigurationError
from katib_callbacks.local.api import models
from katib_callbacks.local.api.manifest import read, read_file
from katib_callbacks.local.plan import resolve

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples" / "experiments").glob("*.yaml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_is_read_and_can_run(path):
    model = read_file(path)
    written = model.serialize()

    assert model.metadata.name == path.stem
    assert resolve(model.serialize()).parameters
    assert resolve(model.serialize()).warnings == (), "an example is for a cluster, too"
    given = yaml.safe_load(path.read_text())
    assert_contains(written, given)
    assert read(written).serialize() == written


def assert_contains(whole, part):
    """Check that nothing of ``part`` was lost or changed; lists may have grown by defaults."""
    if isinstance(part, dict):
        for key, value in part.items():
            assert_contains(whole[key], value)
    elif isinstance(part, list):
        for number, value in enumerate(part):
            assert_contains(whole[number], value)
    else:
        assert whole == part


def test_there_are_fifteen_examples_at_least():
    assert len(EXAMPLES) >= 15


def test_katibs_defaults_are_set():
    given = experiment()
    given["spec"]["objective"]["additionalMetricNames"] = ["accuracy", "speed"]
    given["spec"]["objective"]["metricStrategies"] = [{"name": "speed", "value": "latest"}]
    del given["spec"]["metricsCollectorSpec"], given["spec"]["parallelTrialCount"]
    spec = read(given).spec

    assert spec.parallel_trial_count == 3
    assert spec.resume_policy == "Never"
    assert spec.metrics_collector_spec.collector.kind == "StdOut"
    strategies = {strategy.name: strategy.value for strategy in spec.objective.metric_strategies}
    assert strategies == {"loss": "min", "accuracy": "min", "speed": "latest"}


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        ("File", {"kind": "File", "path": "/var/log/katib/metrics.log", "format": "TEXT"}),
        ("TensorFlowEvent", {"kind": "Directory", "path": "/var/log/katib/tfevent/"}),
    ],
)
def test_a_collector_of_files_has_katibs_path(kind, path):
    manifest = read(experiment(metricsCollectorSpec={"collector": {"kind": kind}})).serialize()

    assert manifest["spec"]["metricsCollectorSpec"]["source"] == {"fileSystemPath": path}


def test_a_file_that_lies_in_no_folder_is_refused():
    source = {"fileSystemPath": {"path": "/metrics"}}
    one = experiment(metricsCollectorSpec={"collector": {"kind": "File"}, "source": source})

    with pytest.raises(
        ConfigurationError, match=r"fileSystemPath\.path: must lie in a folder, .*; '/metrics' lies in /"
    ):
        resolve(read(one).serialize())


def test_the_argument_is_left_as_it_is():
    given = experiment()
    before = copy.deepcopy(given)
    read(given)

    assert given == before


def test_a_model_is_read_like_its_mapping():
    model = models.V1beta1Experiment.from_dict(experiment())

    assert read(model).serialize() == read(experiment()).serialize()
    assert model.spec.trial_template.trial_parameters[0].reference == "x"
    assert model.to_dict()["spec"]["max_trial_count"] == 3


# Legal in Katib, and kept as they stand, though one machine cannot run them: {why: (change, message)}.
ELSEWHERE = {
    "prometheus": (
        {"metricsCollectorSpec": {"source": {"httpGet": {"port": 8080}}, "collector": {"kind": "PrometheusMetric"}}},
        r"'PrometheusMetric' does not collect here; known: Push, StdOut, File",
    ),
    "a collector of one's own": (
        {"metricsCollectorSpec": {"collector": {"kind": "Custom", "customCollector": {"image": "i", "args": ["-m"]}}}},
        r"'Custom' does not collect here",
    ),
    "architectures": (
        {
            "parameters": None,
            "nasConfig": {"graphConfig": {"numLayers": 8}, "operations": [{"operationType": "convolution"}]},
        },
        r"spec\.nasConfig: neural architecture search is not done here",
    ),
}


@pytest.mark.parametrize("kind", ELSEWHERE)
def test_what_only_a_cluster_can_run_is_read_and_then_refused_by_name(kind):
    change, message = ELSEWHERE[kind]
    model = read(experiment(**change))

    assert_contains(model.serialize()["spec"], {key: value for key, value in change.items() if value is not None})
    with pytest.raises(ConfigurationError, match=message):
        resolve(model.serialize())


@pytest.mark.parametrize("kind", ["PaddleJob", "Workflow"])
def test_other_kinds_of_jobs_are_refused_by_name(kind):
    given = experiment()
    given["spec"]["trialTemplate"]["trialSpec"]["kind"] = kind

    with pytest.raises(
        ConfigurationError,
        match=rf"trialSpec\.kind: '{kind}' cannot run .*PyTorchJob, TrainJob, TFJob, XGBoostJob, MPIJob",
    ):
        resolve(read(given).serialize())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "other"}, r"containers: none is the primary container 'main'; there are: other"),
        ({"command": "python train.py ${trialParameters.x}"}, r"containers\[0\]\.command: must be a list of strings"),
        ({"args": [1]}, r"containers\[0\]\.args: must be a list of strings"),
        ({"command": None}, r"containers\[0\]\.command: must be specified"),
        ({"resources": {"limits": {"nvidia.com/gpu": "all"}}}, r"'nvidia\.com/gpu'\]: must be a whole number"),
        ({"resources": {"limits": {"nvidia.com/gpu": [1]}}}, r"'nvidia\.com/gpu'\]: must be a whole number"),
        ({"resources": {"limits": {"cpu": "many"}}}, r"cpu: 'many' is not a number of processors"),
    ],
)
def test_a_container_that_cannot_run_is_refused(changes, message):
    given = experiment()
    (container,) = given["spec"]["trialTemplate"]["trialSpec"]["spec"]["template"]["spec"]["containers"]
    container |= changes

    with pytest.raises(ConfigurationError, match=message):
        resolve(read(given).serialize())


def test_a_config_map_is_refused():
    given = experiment()
    template = given["spec"]["trialTemplate"]
    del template["trialSpec"]
    template["configMap"] = {"configMapName": "a", "configMapNamespace": "b", "templatePath": "c"}

    with pytest.raises(ConfigurationError, match=r"spec\.trialTemplate\.configMap: there is no config map here"):
        resolve(read(given).serialize())


def change(path, value):
    def apply(given):
        *parents, last = path
        for part in parents:
            given = given[part]
        if value is None:
            del given[last]
        else:
            given[last] = value

    return apply


ILLEGAL = [
    (("apiVersion",), "kubeflow.org/v1", r"apiVersion: must be kubeflow\.org/v1beta1"),
    (("metadata",), {}, r"metadata\.name: must be specified"),
    (("metadata", "name"), "My_Experiment", r"metadata\.name: 'My_Experiment' must consist of"),
    (("metadata", "name"), "a" * 64, r"metadata\.name: .* 63 characters"),
    (("spec", "maxTrialsCount"), 3, r"spec\.maxTrialsCount: Katib knows no such field; did you mean maxTrialCount\?"),
    (("spec", "objective", "goals"), 3, r"spec\.objective\.goals: .* did you mean goal\?"),
    (("spec", "maxTrialCount"), "3", r"spec\.maxTrialCount: must be a whole number, not the str '3'"),
    (("spec", "maxTrialCount"), True, r"spec\.maxTrialCount: must be a whole number, not the bool True"),
    (("spec", "maxTrialCount"), 0, r"spec\.maxTrialCount: must be at least 1, not 0"),
    (("spec", "parallelTrialCount"), 4, r"spec\.parallelTrialCount: 4 is above maxTrialCount 3"),
    (("spec", "maxFailedTrialCount"), -1, r"spec\.maxFailedTrialCount: must be at least 0"),
    (("spec",), None, "spec: must be specified"),
    (("spec", "objective"), None, r"spec\.objective: must be specified"),
    (("spec", "objective", "type"), "min", r"spec\.objective\.type: must be minimize or maximize, not 'min'"),
    (("spec", "objective", "objectiveMetricName"), "", r"spec\.objective\.objectiveMetricName: must be specified"),
    (("spec", "objective", "additionalMetricNames"), ["loss"], r"additionalMetricNames: contains the objective 'loss'"),
    (
        ("spec", "objective", "metricStrategies"),
        [{"name": "loss", "value": "mean"}],
        r"spec\.objective\.metricStrategies\[0\]\.value: 'mean' is not known; known: min, max, latest",
    ),
    (("spec", "algorithm"), None, r"spec\.algorithm\.algorithmName: must be specified"),
    (("spec", "resumePolicy"), "Always", r"spec\.resumePolicy: 'Always' is not known"),
    (("spec", "parameters"), None, r"spec: one of parameters and nasConfig must be specified"),
    (
        ("spec", "parameters", 0, "feasibleSpace", "min"),
        0.5,
        r'spec\.parameters\[0\]\.feasibleSpace\.min: must be a string, not the float 0\.5; write "0\.5"',
    ),
    (("spec", "parameters", 0, "feasibleSpace"), ["a"], r"spec\.parameters\[0\]\.feasibleSpace: must be a mapping"),
    (("spec", "parameters"), {"x": 1}, r"spec\.parameters: must be a list, not the dict"),
    (("spec", "parameters", 0, "name"), None, r"spec\.parameters\[0\]\.name: must be specified, and only once"),
    (
        ("spec", "metricsCollectorSpec", "collector", "kind"),
        "None",
        r"spec\.metricsCollectorSpec\.collector\.kind: the kind None was renamed to Push in Katib 0\.17; write Push",
    ),
    (
        ("spec", "metricsCollectorSpec", "collector", "kind"),
        "Pull",
        r"collector\.kind: 'Pull' is not known; known: StdOut",
    ),
    (
        ("spec", "metricsCollectorSpec", "source"),
        {"filter": {"metricsFormat": ["(a"]}},
        r"metricsFormat\[0\]: '\(a' is not a regular expression",
    ),
    (
        ("spec", "metricsCollectorSpec", "source"),
        {"filter": {"metricsFormat": ["ok=(.*)"]}},
        r"metricsFormat\[0\]: 'ok=\(\.\*\)' must have two groups",
    ),
    (
        ("spec", "metricsCollectorSpec", "source"),
        {"filter": {"metricsFormat": [r"(\w+)(?=:) (\d+)"]}},
        r"is not a regular expression: Go takes no such pattern: invalid perl operator",
    ),
    (
        ("spec", "parameters", 0, "feasibleSpace", "list"),
        ["1"],
        r"spec\.parameters\[0\]\.feasibleSpace\.list: is for categorical and discrete parameters, not for double",
    ),
    (
        ("spec", "parameters", 0, "parameterType"),
        "categorical",
        r"feasibleSpace: min, max and step are for int and double parameters, not for categorical; write list",
    ),
    (("spec", "parameters", 0, "feasibleSpace"), {}, r"spec\.parameters\[0\]\.feasibleSpace: must be specified"),
    (
        ("spec", "earlyStopping"),
        {"algorithmName": "hyperband"},
        r"spec\.earlyStopping\.algorithmName: 'hyperband' is not known; known: medianstop",
    ),
    (("spec", "trialTemplate", "trialParameters"), None, r"spec\.trialTemplate\.trialParameters: must be specified"),
    (
        ("spec", "metricsCollectorSpec"),
        {"collector": {"kind": "File"}, "source": {"fileSystemPath": {"kind": "Directory", "path": "/logs/metrics"}}},
        r"fileSystemPath\.kind: must be File for the collector File, not 'Directory'",
    ),
    (
        ("spec", "metricsCollectorSpec"),
        {"collector": {"kind": "File"}, "source": {"fileSystemPath": {"path": "metrics"}}},
        r"fileSystemPath\.path: must be absolute, not 'metrics'",
    ),
    (
        ("spec", "metricsCollectorSpec"),
        {
            "collector": {"kind": "File"},
            "source": {"fileSystemPath": {"format": "JSON"}, "filter": {"metricsFormat": ["(a) (b)"]}},
        },
        r"source\.filter: must be left out where the format is JSON",
    ),
    (
        ("spec", "metricsCollectorSpec"),
        {"collector": {"kind": "TensorFlowEvent"}, "source": {"fileSystemPath": {"format": "TEXT"}}},
        r"fileSystemPath\.format: must be empty for the collector TensorFlowEvent, not 'TEXT'",
    ),
    (("spec", "trialTemplate"), None, r"spec\.trialTemplate: must be specified"),
    (("spec", "trialTemplate", "primaryContainerName"), None, r"primaryContainerName: must be specified"),
    (("spec", "trialTemplate", "trialSpec"), None, r"one of trialSpec and configMap must be specified"),
    (
        ("spec", "trialTemplate", "trialParameters", 0, "reference"),
        "y",
        r"spec\.trialTemplate\.trialParameters\[0\]\.reference: 'y' is not one of spec\.parameters: x",
    ),
    (("spec", "trialTemplate", "trialParameters", 0, "name"), "y", r"'y' is used nowhere in trialSpec"),
    (
        ("spec", "trialTemplate", "trialParameters", 0, "reference"),
        "",
        r"trialParameters\[0\]: name and reference must be specified, and name without braces",
    ),
    (
        ("spec", "trialTemplate", "trialParameters"),
        [{"name": "x", "reference": "x"}, {"name": "y", "reference": "x"}],
        r"trialParameters\[1\]: 'y' or its reference 'x' stands there twice",
    ),
    (
        ("spec", "trialTemplate", "trialParameters"),
        [],
        r"uses \$\{trialParameters\.x\}, which trialParameters does not",
    ),
    (("spec", "trialTemplate", "trialSpec", "kind"), None, r"spec\.trialTemplate\.trialSpec\.kind: must be specified"),
    (("spec", "trialTemplate", "trialSpec", "metadata"), {"name": "a"}, r"trialSpec\.metadata\.name: must be omitted"),
]


@pytest.mark.parametrize(("path", "value", "message"), ILLEGAL, ids=lambda value: None)
def test_what_katib_would_refuse_is_named_with_its_path(path, value, message):
    given = {"apiVersion": "kubeflow.org/v1beta1", **experiment()}
    change(path, value)(given)

    with pytest.raises(ConfigurationError, match=message):
        read(given)


def test_all_faults_are_named_at_once():
    given = experiment(maxTrialCount=0, resumePolicy="Always")

    with pytest.raises(ConfigurationError, match=r"maxTrialCount.*; .*resumePolicy"):
        read(given)


def test_a_space_that_cannot_be_sampled_is_named_with_its_path():
    given = experiment()
    given["spec"]["parameters"][0]["feasibleSpace"]["max"] = "-1"

    with pytest.raises(ConfigurationError, match=r"spec\.parameters\[0\]\.feasibleSpace: min 0 is above max -1"):
        resolve(read(given).serialize())


def test_a_command_of_an_image_is_not_known_here():
    given = experiment()
    containers = given["spec"]["trialTemplate"]["trialSpec"]["spec"]["template"]["spec"]["containers"]
    del containers[0]["command"]

    with pytest.raises(ConfigurationError, match=r"containers\[0\]\.command: must be specified; the image's own"):
        resolve(read(given).serialize())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not YAML"),
        ("a: 1", "holds 0 documents of kind Experiment"),
        ("kind: Experiment\n---\nkind: Experiment", "holds 2 documents"),
        ("kind: Experiment\nspec: []", "spec: must be a mapping, not the list"),
    ],
)
def test_a_file_that_is_no_experiment_is_named(tmp_path, text, message):
    path = tmp_path / "experiment.yaml"
    path.write_text(text)

    with pytest.raises(ConfigurationError, match=message) as caught:
        read_file(path)
    assert str(path) in str(caught.value)


def test_what_has_no_effect_here_is_listed():
    assert resolve(read_file(ROOT / "examples" / "experiments" / "early-stopping.yaml").serialize()).notes == (
        "the image (this Python's environment is used)",
        "early stopping",
    )
