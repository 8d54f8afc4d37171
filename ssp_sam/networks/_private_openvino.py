"""OpenVINO without its telemetry: importing the package would report that to its makers over the network.

Modules here import `openvino` from this one.
"""

import sys

sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # openvino then takes its own stub

import openvino  # noqa: E402

__all__ = ["openvino"]
