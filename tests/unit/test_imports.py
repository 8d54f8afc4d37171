"""What runs where no torch is installed, or must start fast, imports none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2] / "model_repository"
LIGHT = (
    "ssp_sam",
    "ssp_sam.client",
    "ssp_sam.preprocess",
    "ssp_sam.postprocess",
    "ssp_sam.tokenizer",
    "ssp_sam.serving.contract",
    "ssp_sam.serving.repository",
    "ssp_sam.serving.stages",
    "ssp_sam.serving.orchestrator",
)


@pytest.mark.parametrize("module", LIGHT)
def test_no_torch_is_imported(module: str) -> None:
    code = f"import sys, {module}; print(*(name for name in ('torch', 'transformers') if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def test_the_client_imports_nothing_of_the_server_extra() -> None:
    heavy = ("torch", "transformers", "tokenizers", "ftfy", "safetensors", "segment_anything", "torchvision", "psutil")
    code = f"import sys, ssp_sam.client; print(*(name for name in {heavy} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.split() == []


def test_openvino_reports_to_nobody() -> None:
    code = """if True:
        import sys
        import ssp_sam.networks.openvino_conversion
        import ssp_sam.networks.openvino_network
        from openvino.tools.ovc import telemetry_utils
        print(telemetry_utils.tm.__name__, [name for name in sys.modules if name.startswith("openvino_telemetry.")])
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "openvino.tools.ovc.telemetry_stub []"


def test_loading_a_network_imports_neither_transformers_nor_the_compiler_of_torch() -> None:
    code = f"""if True:
        import sys
        from pathlib import Path
        from ssp_sam.checkpoint import load_stage_module
        from ssp_sam.config import get_preset
        from ssp_sam.modeling.ssp_sam import STAGES
        from ssp_sam.serving.repository import weights_path

        for stage in STAGES:
            module = load_stage_module(stage, get_preset("tiny"), weights_path(Path({str(REPOSITORY)!r}), stage))
            assert all(values.isfinite().all() for values in module.state_dict().values())
        print(*(name for name in ("transformers", "torch._dynamo", "sympy", "torchvision") if name in sys.modules))
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
