"""OpenVINO without its telemetry: importing the package would report that to its makers over the network.

Modules here import `openvino`, and the one core of the process, from this one.
"""

import sys

sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # openvino then takes its own stub

import openvino  # noqa: E402

# One, and never given up. OpenVINO lends the thread that compiles first a stack for signal handlers and takes it back
# with the last core. When another thread lets go of that core, the lender's next signal (Ctrl-C, the end of a child)
# finds no stack, and the kernel kills the process without a word.
CORE = openvino.Core()

__all__ = ["CORE", "openvino"]
