"""Files as kubectl reads them: types, lists, several documents; and what a cluster then refuses."""

from pathlib import Path

import pytest
import yaml
from homes import experiment

from katib_callbacks.errors import ConfigurationError
from katib_callbacks.local.api.kubernetes_yaml import read_documents
from katib_callbacks.local.api.manifest import read_file

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1E+2", 100),
        ("3.0", 3),
        (".5", 0.5),
        ("1_000", 1000),
        ("0x1F", 31),
        ("017", 15),
        ("0o17", 15),
        ("089", 89),
        ("0b11", 3),
        ("-0", 0),
        ("18446744073709551615", 2**64 - 1),
        ("2024-01-01", "2024-01-01"),
        ("2024-01-01T00:00:00Z", "2024-01-01T00:00:00Z"),
        ("12:30", "12:30"),
        ("1.2.3", "1.2.3"),
        ("1e400", "1e400"),
        pytest.param("9" * 5000, "9" * 5000, id="5000 digits"),
        ("=", "="),
        ("yes", True),
        ("Off", False),
        ("y", True),
        ("yEs", "yEs"),
        ("~", None),
        ("'1'", "1"),
        ('"true"', "true"),
        ("!!str 1e-3", "1e-3"),
        ("!!timestamp 2024-01-01", "2024-01-01"),
        ("!!binary aGk=", "hi"),
    ],
)
def test_a_scalar_has_the_type_that_kubernetes_gives_it(text, value):
    [document] = read_documents(f"a: {text}")

    assert document == {"a": value}
    assert type(document["a"]) is type(value)


def test_aliases_do_not_multiply_without_end():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 20)]

    assert read_documents("\n".join(lines[:3])) != []
    with pytest.raises(ConfigurationError, match="its aliases multiply them"):
        read_documents("\n".join(lines))
    with pytest.raises(ConfigurationError, match="its aliases multiply them"):
        read_documents("a: &a [*a]")


def test_what_is_merged_again_and_again_is_there_once():
    lines = ["a0: &a0 {x: 1}"]
    lines += [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}], y{n}: 2}}" for n in range(1, 20)]
    lines += ["first: {<<: [*a0, {x: 3}, *a0]}", "last: {<<: {x: 3}, x: 4}"]

    [document] = read_documents("\n".join(lines))
    assert document["a19"] == {"x": 1} | {f"y{n}": 2 for n in range(1, 20)}
    assert (document["first"], document["last"]) == ({"x": 1}, {"x": 4})


def test_what_is_too_deep_is_refused():
    with pytest.raises(ConfigurationError, match="too deep"):
        read_documents("[" * 5000 + "]" * 5000)


def test_names_of_fields_are_strings_and_merging_works():
    [document] = read_documents("base: &base {on: 1, 2: b}\nown: {<<: *base, c: 3}")

    assert document == {"base": {"true": 1, "2": "b"}, "own": {"true": 1, "2": "b", "c": 3}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: .inf", "holds .inf, which Kubernetes cannot read"),
        ("a: {", "is not YAML"),
        ("a: !own 1", "is not YAML: could not determine a constructor for the tag '!own'"),
        ("? ~\n: 1", "has None as the name of a field"),
    ],
)
def test_what_json_does_not_have_is_refused(text, message):
    with pytest.raises(ConfigurationError, match=message):
        read_documents(text)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("**/*.yaml")), ids=lambda path: path.stem)
def test_our_examples_mean_the_same_to_every_reader(path):
    text = path.read_text()

    assert read_documents(text) == list(yaml.safe_load_all(text))


def named(name):
    return {**experiment(name=name), "apiVersion": "kubeflow.org/v1beta1", "kind": "Experiment"}


@pytest.fixture
def file(tmp_path):
    """Write an experiment, with changes in its text, and read it."""

    def read(*changes, name=None, documents=()):
        text = yaml.safe_dump_all(documents or [named("one")])
        for old, new in changes:
            assert old in text
            text = text.replace(old, new, 1)
        path = tmp_path / "experiment.yaml"
        path.write_text(text)
        return read_file(path, name)

    return read


@pytest.mark.parametrize(("goal", "value"), [("1e-3", 0.001), ("1E+2", 100)])
def test_a_goal_may_be_written_in_powers_of_ten(file, goal, value):
    assert file(("type: minimize", f"type: minimize\n    goal: {goal}")).spec.objective.goal == value


@pytest.mark.parametrize("word", ["2024-01-01", "12:30"])
def test_an_argument_may_look_like_a_date_or_a_time(file, word):
    spec = file(("env:\n", f"args: [{word}]\n              env:\n")).spec.trial_template.trial_spec

    assert spec["spec"]["template"]["spec"]["containers"][0]["args"] == [word]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("min: '0'", "min: 1e-5", r'feasibleSpace\.min: must be a string, not the float 1e-05; write "1e-05"'),
        (
            "env:\n",
            "env:\n              - {name: A, value: true}\n",
            r'containers\[0\]\.env\[0\]\.value: must be a string, not the bool True; write "true"',
        ),
        (
            "env:\n",
            "env:\n              - {name: A, value: 1}\n",
            r'containers\[0\]\.env\[0\]\.value: must be a string, not the int 1; write "1"',
        ),
        ("kubeflow.org/v1beta1", "kubeflow.org/v1alpha3", r"apiVersion: kubeflow\.org/v1alpha3 is of a Katib before"),
    ],
)
def test_what_a_cluster_refuses_for_its_type_is_refused(file, old, new, message):
    with pytest.raises(ConfigurationError, match=message):
        file((old, new))


@pytest.mark.parametrize(
    "documents",
    [
        [named("one"), {"kind": "Namespace"}, named("two")],
        [{"apiVersion": "v1", "kind": "List", "items": [named("one"), {"kind": "Namespace"}, named("two")]}],
    ],
    ids=["documents", "list"],
)
def test_of_several_experiments_one_is_chosen_by_its_name(file, documents):
    assert file(documents=documents, name="two").metadata.name == "two"
    with pytest.raises(ConfigurationError, match=r"holds 2 documents of kind \w+ or .* by its name: one, two"):
        file(documents=documents)
    with pytest.raises(ConfigurationError, match="holds no Experiment or OptimizationJob 'three'; it holds: one, two"):
        file(documents=documents, name="three")
