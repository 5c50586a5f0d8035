"""Both packages, in every order of imports, each in a fresh interpreter."""

import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import katib_callbacks
from katib_callbacks.lightning import KatibReportCallback

SCRIPT = """
import warnings
warnings.simplefilter("ignore")
{imports}
import torch
from torch.utils.data import DataLoader, TensorDataset

class Module({package}.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
    def training_step(self, batch, _):
        loss = self.layer(batch[0]).mean()
        self.log("loss", 0.25)
        return loss
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

callback = KatibReportCallback("loss")
assert isinstance(callback, {package}.Callback)
trainer = {package}.Trainer(max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False,
    enable_progress_bar=False, enable_model_summary=False, callbacks={given})
trainer.fit(Module(), DataLoader(TensorDataset(torch.ones(4, 1)), batch_size=2))
print("delivered", callback.receipt.delivered)
"""
OURS = "from katib_callbacks.lightning import KatibReportCallback"
PACKAGES = {"lightning": "lightning.pytorch", "pytorch_lightning": "pytorch_lightning"}


def is_before(package, *release):
    return tuple(map(int, version(package).split(".")[:2])) < release


def run(katib_db_manager, imports, package, given="callback"):
    script = SCRIPT.format(imports="\n".join(imports), package=PACKAGES[package], given=given)
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=240, check=False)
    assert result.returncode == 0, result.stderr
    assert "delivered 1" in result.stdout
    assert [(row.name, row.value) for row in katib_db_manager.metrics()] == [("loss", "0.25")]


@pytest.mark.parametrize("package", PACKAGES)
@pytest.mark.parametrize("is_first", [True, False], ids=["ours first", "ours last"])
def test_a_bare_callback_works_in_either_package_in_either_order(katib_db_manager, package, is_first):
    framework = f"import {PACKAGES[package]}"
    run(katib_db_manager, [OURS, framework] if is_first else [framework, OURS], package)


def test_a_folder_called_lightning_is_no_package(tmp_path):
    (tmp_path / "lightning").mkdir()
    (tmp_path / "pytorch_lightning").mkdir()
    (tmp_path / "pytorch_lightning" / "__init__.py").write_text("class Callback: pass")
    script = f"import sys; sys.path[:0] = {[str(tmp_path), str(Path(katib_callbacks.__file__).parents[1])]}; {OURS}"
    script += "; print([base.__module__ for base in KatibReportCallback.__bases__])"
    # Without site-packages: an installed lightning would come before the folder.
    result = subprocess.run([sys.executable, "-S", "-c", script], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "['katib_callbacks.recording.callback', 'pytorch_lightning']"


@pytest.mark.parametrize("package", PACKAGES)
def test_with_both_loaded_it_is_a_callback_of_both(katib_db_manager, package):
    run(katib_db_manager, ["import pytorch_lightning", "import lightning.pytorch", OURS], package)


@pytest.mark.parametrize("given", ["callback", "[callback]"])
@pytest.mark.parametrize(("loaded", "used"), [tuple(PACKAGES), tuple(reversed(PACKAGES))])
def test_made_for_one_package_it_works_in_the_others_list(katib_db_manager, loaded, used, given):
    """From Lightning 2.6 on, and never bare: Lightning itself takes it for no callback."""
    imports = [f"import {PACKAGES[loaded]}", OURS, f"import {PACKAGES[used]}"]
    script = SCRIPT.replace("assert isinstance", "assert not isinstance")
    result = subprocess.run(
        [sys.executable, "-c", script.format(imports="\n".join(imports), package=PACKAGES[used], given=given)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    if given == "callback" or is_before(used, 2, 6):
        assert result.returncode != 0
        assert re.search("^(TypeError|ValueError): ", result.stderr, re.MULTILINE)
        assert katib_db_manager.metrics() == []
        return
    assert result.returncode == 0, result.stderr
    assert [(row.name, row.value) for row in katib_db_manager.metrics()] == [("loss", "0.25")]


def test_a_misspelt_argument_blames_the_public_class():
    with pytest.raises(TypeError, match=r"^KatibReportCallback\(\) got .* 'metric'; did you mean 'metrics'\?$"):
        KatibReportCallback(metric="loss")
