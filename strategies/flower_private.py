"""What strategies use of Flower beyond its public API: the deployed grid, and SecAgg's parts."""

from fedsim.core.pieces import Pieces

GRID = Pieces(
    "flwr",
    "a deadline on replies that arrive in parts",
    {
        "HttpGrid": "flwr.superlink.grid.http_grid:HttpGrid",
        "pull_objects": "flwr.superlink.grid.http_grid:pull_objects",
    },
)

_SECAGG = "flwr.common.secure_aggregation"
SECAGG = Pieces(
    "flwr",
    "recording Flower's secure aggregation",
    {
        "bytes_to_ndarray": "flwr.common:bytes_to_ndarray",
        "combine_shares": f"{_SECAGG}.crypto.shamir:combine_shares",
        "generate_shared_key": f"{_SECAGG}.crypto.symmetric_encryption:generate_shared_key",
        "RECORD_KEY_CONFIGS": f"{_SECAGG}.secaggplus_constants:RECORD_KEY_CONFIGS",
        "Key": f"{_SECAGG}.secaggplus_constants:Key",
        "Stage": f"{_SECAGG}.secaggplus_constants:Stage",
        "pseudo_rand_gen": f"{_SECAGG}.secaggplus_utils:pseudo_rand_gen",
        "private_key": "flwr.supercore.primitives.asymmetric:bytes_to_private_key",
        "public_key": "flwr.supercore.primitives.asymmetric:bytes_to_public_key",
    },
)
