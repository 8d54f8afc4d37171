import sys
from pathlib import Path

# The fake server of the client's tests serves these too.
sys.path.append(str(Path(__file__).parents[1] / "client"))
