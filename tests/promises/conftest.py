"""The app over HTTP for every promise."""

from tests.http import api, loop_runner, make_api, module_api, module_apps  # noqa: F401
