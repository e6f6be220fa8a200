import asyncio
import io
import zipfile

import httpx
import pytest

from fedsim.deploy import doors
from tests.builders import deployment


def superlink_app():
    """Return Flower's own application behind our door."""
    from flwr.superlink import extensions
    from flwr.superlink.main import create_app
    from starlette.middleware import Middleware

    before = extensions.get_middleware
    extensions.get_middleware = lambda: (Middleware(doors.OnlyNodes),)
    try:
        return create_app()
    finally:
        extensions.get_middleware = before


def asked(application, client, path):
    """Return the status with which the application answers a machine."""
    transport = httpx.ASGITransport(application, raise_app_exceptions=False, client=(client, 40000))

    async def post():
        async with httpx.AsyncClient(transport=transport, base_url="https://192.0.2.1") as browser:
            return (await browser.post(path, content=b"")).status_code

    return asyncio.run(post())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Flower's own
def test_other_machines_reach_the_nodes_part_alone():
    from fastapi.routing import iter_route_contexts

    application = superlink_app()
    inner = {told.route.path for told in iter_route_contexts(application.routes)} - {"/health"}
    shut = sorted(path for path in inner if not path.startswith("/v1/fleet/"))
    assert "/v1/control/register-node" in shut
    assert "/v1/control/start-run" in shut
    assert any(path.startswith("/v1/runtime/") for path in shut)
    for path in shut:
        assert asked(application, "10.0.0.7", path) == 403, path
    for path in ("//v1/control/start-run", "/v1/fleet/../control/start-run", "/V1/control/x"):
        assert asked(application, "10.0.0.7", path) in (403, 404)
    assert asked(application, "10.0.0.7", "/v1/fleet/activate-node") != 403  # asks for a signature
    assert asked(application, "127.0.0.1", "/v1/control/list-nodes") != 403
    assert asked(application, "not-an-address", "/v1/control/list-nodes") == 403


def bundle(**files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in files.items():
            archive.writestr(name.replace("__", "/").replace("_dot_", "."), text)
    return buffer.getvalue()


def project(clientapp="fedsim.federation.client_app:app"):
    return f'[tool.flwr.app.components]\nclientapp = "{clientapp}"\n'


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Flower's own
def test_the_thin_bundle_is_let_in_and_no_other(tmp_path):
    from flwr.cli.build import build_fab_from_disk

    _, folder = deployment(tmp_path)
    assert doors.foreign(build_fab_from_disk(folder / "app")) == ""
    (folder / "app" / "extra.py").write_text("import os")
    assert "must hold no code at this node, got extra.py" in doors.foreign(
        build_fab_from_disk(folder / "app")
    )
    other = bundle(pyproject_dot_toml=project("somebody.else:app"))
    assert doors.foreign(other) == (
        "bundle: must use fedsim.federation.client_app:app at this node, got somebody.else:app"
    )
    agent = bundle(pyproject_dot_toml=project() + 'agentapp = "os:system"\n')
    assert "a serverapp and a clientapp alone, got agentapp" in doors.foreign(agent)
    assert "must be an app bundle" in doors.foreign(b"no zip")
    assert "must be an app bundle" in doors.foreign(bundle(pyproject_dot_toml="[tool]"))
    assert "must hold no code" in doors.foreign(
        bundle(pyproject_dot_toml=project(), fedsim__client_app_dot_py="x")
    )


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Flower's own
def test_keys_are_registered_once_and_those_taken_out_are_unregistered(tmp_path):
    from flwr.server.superlink.linkstate import LinkStateFactory
    from flwr.supercore.object_store import ObjectStoreFactory
    from flwr.superlink.federation import NoOpFederationManager

    _, folder = deployment(tmp_path, nodes=3)
    database = str(tmp_path / "link.db")
    factory = LinkStateFactory(database, NoOpFederationManager(), ObjectStoreFactory(database))
    state = factory.state()
    known = doors.read_keys(folder / "superlink" / "nodes")
    doors.register(state, known)
    doors.register(state, known)
    assert {(info.name, info.status) for info in state.get_node_info()} == {
        (f"node{number}", "registered") for number in range(3)
    }
    (folder / "superlink" / "nodes" / "node1.pub").unlink()
    fewer = doors.read_keys(folder / "superlink" / "nodes")
    doors.register(state, fewer)
    [gone] = set(known) - set(fewer)
    assert state.get_node_id_by_public_key(gone) is None
    assert {state.get_node_id_by_public_key(key) is None for key in fewer} == {False}
