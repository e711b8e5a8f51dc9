"""JupyterHub for a room: one set-up, one JupyterLab and kernels for each person. docs/teaching.md says what was seen with it.

    HUB_PASSWORD=... jupyterhub --config docs/jupyterhub_config.py

Everything listens on 127.0.0.1. Whoever sits elsewhere comes through a tunnel: `ssh -L 8000:127.0.0.1:8000 MACHINE`.
"""

import os
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent  # the repository, set up with `nox -s tour`; people only read it
ROOM = Path(os.environ.get("HUB_FOLDER", Path.home() / "llm-room"))  # the hub's own files, and a folder for each person
MODELS = Path.home() / ".cache" / "llm-frameworks-measured"  # made once by the set-up, with the conversions
PORT = int(os.environ.get("HUB_PORT", "8000"))  # and the two after it
PEOPLE = 30
IDLE_S = 3600  # a kernel whose page is closed ends when nothing has run in it for so long, and its server with it

if not os.environ.get("HUB_PASSWORD"):
    sys.exit("HUB_PASSWORD is not set, and without one anybody on this machine could come in: HUB_PASSWORD=... jupyterhub ...")

c = get_config()  # noqa: F821 - JupyterHub gives it
ROOM.mkdir(parents=True, exist_ok=True, mode=0o700)

c.JupyterHub.bind_url = f"http://127.0.0.1:{PORT}"
c.JupyterHub.hub_bind_url = f"http://127.0.0.1:{PORT + 1}"
c.ConfigurableHTTPProxy.api_url = f"http://127.0.0.1:{PORT + 2}"
if "HUB_PROXY" in os.environ:  # where npm has put it, if it is not in PATH
    c.ConfigurableHTTPProxy.command = [os.environ["HUB_PROXY"]]
c.JupyterHub.cookie_secret_file = str(ROOM / "cookie_secret")
c.JupyterHub.db_url = f"sqlite:///{ROOM / 'hub.sqlite'}"
c.ConfigurableHTTPProxy.pid_file = str(ROOM / "proxy.pid")
c.JupyterHub.active_server_limit = PEOPLE

# One password for the room, any name, and every process is of the account that runs the hub. People who must not read or
# change each other's files need accounts of the system: authenticator "pam", spawner "local", a hub that runs as root.
c.JupyterHub.authenticator_class = "shared-password"
c.SharedPasswordAuthenticator.user_password = os.environ["HUB_PASSWORD"]  # eight characters or more
c.Authenticator.allow_all = True
c.JupyterHub.spawner_class = "simple"
c.SimpleLocalProcessSpawner.home_dir_template = str(ROOM / "people" / "{username}")


def lay_out(spawner) -> None:
    """Copy the notebooks into a person's folder, once, and let their kernels find the model's files."""
    home = Path(spawner.home_dir)
    notebooks, cache = home / "notebooks", home / ".cache" / MODELS.name
    if not notebooks.exists():
        shutil.copytree(ROOT / "notebooks", notebooks)
    cache.parent.mkdir(parents=True, exist_ok=True)
    if not cache.is_symlink():
        cache.symlink_to(MODELS)


c.Spawner.pre_spawn_hook = lay_out
c.Spawner.ip = "127.0.0.1"
c.Spawner.cmd = [sys.executable, "-m", "jupyterhub.singleuser"]  # of the environment that runs the hub: it has the lab's pins
c.Spawner.notebook_dir = "~/notebooks"
c.Spawner.default_url = "/lab"
c.Spawner.environment = {
    "JUPYTER_PATH": str(ROOT / ".jupyter"),  # every kernel, from the environments in .venvs
    "JUPYTER_CONFIG_PATH": str(ROOT / ".jupyter" / "settings"),  # `nox -s lab` writes it: no news, no look for updates
    "PYDEVD_DISABLE_FILE_VALIDATION": "1",
}
c.Spawner.args = [f"--MappingKernelManager.cull_idle_timeout={IDLE_S}", *(["--allow-root"] if os.geteuid() == 0 else [])]

if "HUB_TOKEN" in os.environ:  # for a program that starts people's servers, as the measurement in docs/teaching.md did
    c.JupyterHub.services = [{"name": "room", "api_token": os.environ["HUB_TOKEN"]}]
    scopes = ["admin:users", "admin:servers", "access:servers", "list:users"]
    c.JupyterHub.load_roles = [{"name": "room", "services": ["room"], "scopes": scopes}]
