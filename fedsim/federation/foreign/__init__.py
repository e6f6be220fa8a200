"""The foreign room: recordings of somebody else's Flower app.

In: the folder of a tape, and what its user says of the app (`App`). Out: a plan of attacks on it.
`twin` matches the arrays of other frameworks with those of a model in torch.
"""

from fedsim.federation.foreign.app import App
from fedsim.federation.foreign.config import asked, lacking
from fedsim.federation.foreign.recording import is_foreign, tell

__all__ = ["App", "asked", "is_foreign", "lacking", "tell"]
