"""The viewer of itkwidgets without its outside addresses, in the environment that runs this.

    python -m course.itk_viewer

itkwidgets and its JupyterLab extension load their scripts from five hosts, at addresses written into them. This module
fetches the same scripts from pinned npm packages into the folder of the extension, which JupyterLab serves itself, and
writes the local addresses over the outside ones. One script is in no package, vue-window: the extension registers it
and draws the viewer in the cell without it, so an empty one takes its place.
"""

import base64
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import urllib.request
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from ssl_utils.errors import CourseError
from ssl_utils.widgets.volume3d import ITK_FOLDER, ITK_SERVED as SERVED

REGISTRY = "https://registry.npmjs.org"
CDN = "https://cdn.jsdelivr.net/npm"
LOADER = "vendors-*_imjoy-loader_js*.js"
CORE, PAGE = "viewer/imjoy-core/imjoy-core.min.js", "viewer/itk-vtk-viewer/index.html"


@dataclass(frozen=True)
class Package:
    """An npm package; `integrity` is the registry's SHA-512 in base 64, `files` the patterns below `dist/` to keep."""

    name: str
    version: str
    integrity: str
    files: tuple[str, ...]


PACKAGES = (
    Package(
        "itk-vtk-viewer",
        "14.51.0",
        "i1H0PfekLdCfL45lZ96aWCoh4thzxeexiGJ3NYC9euF1WefXW0P1JijBLIJfrDBvp5fhjncj/EEnIW1auBh+zw==",
        ("index.html", "*itkVtkViewer.js", "e*.js", "itk/pipeline/*", "itk/web-workers/min-bundles/*"),
    ),
    Package(
        "imjoy-core",
        "0.14.5",
        "G0ybhLq57vOSM+4DhJ7A/3WSjJdbzk+WoEqg4+c5clkRhLOYY5VfI6oJ4MI664ZsVVgIinswsEJWbHAWQOBxFg==",
        ("imjoy-core.min.js", "imjoy-loader.min.js", "imjoy-rpc.min.js"),
    ),
    Package(
        "vue",
        "2.6.10",
        "ImThpeNU9HbdZL3utgMCq0oiMzAkt1mcgy3/E6zWC/G6AaQoeuFdsl9nDhTDU3X1R6FK7nsIUuRACVcjI+A2GQ==",
        ("vue.min.js",),
    ),
    Package(
        "vue-js-modal",
        "1.3.35",
        "DKtxUCW/oprM/ndn9h/cnVgsmqjQ/ARy5rH4q/11Pas04og2td+sltl91H/rlwXTwJIqWyt+lJizK5o4ErjWIQ==",
        ("index.js", "styles.css"),
    ),
)
REPLACED = (  # file below the extension's static folder, what it contains, how many times, what takes its place
    (LOADER, f"{CDN}/vue@2.6.10/dist/vue.min.js", 1, f"{SERVED}/vue/vue.min.js"),
    (LOADER, "https://imjoy-team.github.io/vue-js-modal", 2, f"{SERVED}/vue-js-modal"),
    (LOADER, f"{CDN}/@oeway/vue-window@2.4.1-a/lib/index.js", 1, f"{SERVED}/vue-window.js"),
    (LOADER, f"{CDN}/imjoy-core@${{version}}/dist/", 1, f"{SERVED}/imjoy-core/"),
    ("lib_index_js.*.js", "https://imjoy.io/static/img/imjoy-logo-black.svg", 1, f"{SERVED}/logo.svg"),
    (CORE, f"{CDN}/imjoy-rpc@${{version}}/dist/", 1, f"{SERVED}/imjoy-core/"),
    (CORE, '"startup":true', 2, '"startup":false'),  # plugins from another host
    (PAGE, "https://lib.imjoy.io/imjoy-loader.js", 1, "../imjoy-core/imjoy-loader.min.js"),
    (PAGE, "api_version: '0.2.3'", 1, "api_version: '0.2.3', base_url: '../imjoy-core/'"),
)
OWN = {
    "vue-window.js": "window.VueWindow = {};\n",
    "logo.svg": '<svg xmlns="http://www.w3.org/2000/svg" width="17" height="17"><circle cx="8" cy="8" r="6"/></svg>',
}


def registry() -> str:
    """The registry that npm is set up to use, as far as there is an npm; else npm's own."""
    for name in ("npm_config_registry", "NPM_CONFIG_REGISTRY"):
        if os.environ.get(name):
            return os.environ[name].rstrip("/")
    if npm := shutil.which("npm"):
        answer = subprocess.run([npm, "config", "get", "registry"], capture_output=True, text=True).stdout.strip()
        if answer.startswith("http"):
            return answer.rstrip("/")
    return REGISTRY


def fetch(package: Package, source: str) -> bytes:
    """The package's tar archive, with the right checksum.

    Raises:
        CourseError: no answer, or another file than the pinned one.
    """
    url = f"{source}/{package.name}/-/{package.name}-{package.version}.tgz"
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            archive = answer.read()
    except OSError as error:
        fix = "check the connection, or name another npm registry in NPM_CONFIG_REGISTRY"
        raise CourseError(f"{url}: cannot be downloaded ({getattr(error, 'reason', error)}); {fix}") from None
    digest = base64.b64encode(hashlib.sha512(archive).digest()).decode()
    if digest != package.integrity:
        raise CourseError(
            f"{url}: has SHA-512 {digest} instead of {package.integrity}; use a registry with the original"
        )
    return archive


def unpack(package: Package, archive: bytes, folder: Path) -> None:
    """Write the files that the viewer loads, those below `dist/` that match, into `folder`."""
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
        for member in tar:
            name = member.name.removeprefix("package/dist/")
            if member.isfile() and name != member.name and any(fnmatch(name, pattern) for pattern in package.files):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(tar.extractfile(member).read())


def replace(static: Path, pattern: str, old: str, times: int, new: str) -> None:
    """Put `new` in the place of `old`, which must be there that many times, or have been replaced before.

    Raises:
        CourseError: the file is missing, or does not contain what the pinned version contains.
    """
    paths = list(static.glob(pattern))
    texts = [path.read_text(encoding="utf-8") for path in paths]
    if len(paths) == 1 and texts[0].count(old) == 0 and texts[0].count(new) >= times:
        return
    if [text.count(old) for text in texts] != [times]:
        pins = "install the versions that pyproject.toml pins in the extra itk"
        raise CourseError(f"{static / pattern}: does not contain {old} {times} times in one file; {pins}")
    paths[0].write_text(texts[0].replace(old, new), encoding="utf-8")


def install(viewer: Path = ITK_FOLDER, packages: tuple[Package, ...] = PACKAGES) -> None:
    """Fetch the packages into `viewer` and replace the addresses in it and in the extension around it."""
    if not viewer.parent.is_dir():
        raise CourseError(
            f"{viewer.parent}: no itkwidgets in this environment; make lab VIEWER=itk makes one that has it"
        )
    shutil.rmtree(viewer, ignore_errors=True)
    source = registry()
    for package in packages:
        print(f"Downloading {package.name} {package.version} ...", flush=True)
        unpack(package, fetch(package, source), viewer / package.name)
    for name, content in OWN.items():
        (viewer / name).write_text(content, encoding="utf-8")
    for pattern, old, times, new in REPLACED:
        replace(viewer.parent, pattern, old, times, new)


if __name__ == "__main__":
    try:
        install()
    except CourseError as error:
        sys.exit(f"{error}")
