"""Damages a copy of an archive in every way and asks verify_run.py each time: mutations.py STORE PUBLIC_KEY STRIDE.

Flips bytes of every object below runs/ and of archive.json (every STRIDE-th byte of it, the last one too), and deletes,
adds, swaps and renames them. Prints what was not noticed, and how many mutations there were.
"""
import functools, pathlib, sys

import verify_run

store, der, stride = pathlib.Path(sys.argv[1]), verify_run.public_key(pathlib.Path(sys.argv[2]).read_text()), int(sys.argv[3])
# Most signatures are the same from one mutation to the next.
verify_run.is_signed = functools.lru_cache(maxsize=None)(verify_run.is_signed)
objects = sorted(path for path in (store / "runs").rglob("*") if path.is_file()) + [store / "archive.json"]
unnoticed, count = [], 0


def write(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_bytes(data)


def expect_noticed(what):
    global count
    count += 1
    if not verify_run.check_store(store, der):
        unnoticed.append(what)


if problems := verify_run.check_store(store, der):
    sys.exit(f"the untouched archive: {problems}")
for path in objects:
    data = path.read_bytes()
    for at in sorted({*range(0, len(data), stride), len(data) - 1}):
        write(path, data[:at] + bytes([data[at] ^ (1 << at % 8)]) + data[at + 1:])
        expect_noticed(f"byte {at} of {path}")
    for other, what in [(b"", "emptied"), (data + b"\n", "lengthened"), (data[:-1], "shortened")]:
        write(path, other)
        expect_noticed(f"{what} {path}")
    path.unlink()
    expect_noticed(f"deleted {path}")
    moved = path.with_name("moved-" + path.name)
    write(moved, data)
    expect_noticed(f"renamed {path}")
    write(path, data)
    if path.name != "archive.json":
        expect_noticed(f"added {moved}")
    moved.unlink()
for one, other in zip(objects, objects[1:] + objects[:1]):
    first, second = one.read_bytes(), other.read_bytes()
    write(one, second), write(other, first)
    expect_noticed(f"swapped {one} and {other}")
    write(one, first), write(other, second)
if problems := verify_run.check_store(store, der):
    sys.exit(f"the archive, put back: {problems}")
print("\n".join(unnoticed + [f"{count} mutations"]))
sys.exit(1 if unnoticed else 0)
