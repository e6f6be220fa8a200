"""What the two doors use of Flower beyond its public API: links, keys, nodes and bundles."""

from fedsim.core.pieces import Pieces

_STATE = "flwr.server.superlink.linkstate:LinkState"

LINK = Pieces(
    "flwr",
    "a SuperLink that answers nodes alone",
    {
        "flower_superlink": "flwr.superlink.cli:flower_superlink",
        "get_middleware": "flwr.superlink.extensions:get_middleware",
        "get_lifespan_contexts": "flwr.superlink.extensions:get_lifespan_contexts",
    },
)
KEYS = Pieces(
    "flwr",
    "registering the keys of nodes",
    {
        "public_key_to_bytes": "flwr.supercore.primitives.asymmetric:public_key_to_bytes",
        "bytes_to_public_key": "flwr.supercore.primitives.asymmetric:bytes_to_public_key",
        "verify_signature": "flwr.supercore.primitives.asymmetric:verify_signature",
        "KEY_HEADER": "flwr.supercore.constant:FLEET_HTTP_PUBLIC_KEY_HEADER",
        "SIGNATURE_HEADER": "flwr.supercore.constant:FLEET_HTTP_SIGNATURE_HEADER",
        "TIME_HEADER": "flwr.common.constant:TIMESTAMP_HEADER",
        "LIFETIME": "flwr.common.constant:TIMESTAMP_TOLERANCE",
        "DRIFT": "flwr.common.constant:SYSTEM_TIME_TOLERANCE",
        "HEARTBEAT": "flwr.common.constant:HEARTBEAT_DEFAULT_INTERVAL",
        "ACCOUNT_NAME": "flwr.common.constant:NOOP_ACCOUNT_NAME",
        "ACCOUNT_ID": "flwr.common.constant:NOOP_FLWR_AID",
        "get_node_info": f"{_STATE}.get_node_info",
        "create_node": f"{_STATE}.create_node",
        "delete_node": f"{_STATE}.delete_node",
    },
)
NODE = Pieces(
    "flwr",
    "starting a SuperNode",
    {"flower_supernode": "flwr.supernode.cli:flower_supernode"},
)
BUNDLES = Pieces(
    "flwr",
    "a SuperNode that refuses the code of a run",
    {
        "pull": "flwr.supernode.start_client_internal:_pull_and_store_message",
        "verify": "flwr.supernode.start_client_internal:_verify_fab",
        "refusal": "flwr.supernode.start_client_internal:FAB_VERIFICATION_ERROR",
        "INVALID_FAB": "flwr.common.constant:ErrorCode.INVALID_FAB",
        "Fab": "flwr.supercore.fab:Fab",
    },
)
