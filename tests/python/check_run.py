"""Checks one run record against its chunks: check_run.py STORE RUN_JSON. Its signature is checked with openssl."""
import gzip, hashlib, json, pathlib, sys


def sha256(data):
    return hashlib.sha256(data).digest()


def root(leaves):  # RFC 6962, section 2.1
    if len(leaves) < 2:
        return leaves[0] if leaves else sha256(b"")
    split = 1 << (len(leaves) - 1).bit_length() - 1
    return sha256(b"\x01" + root(leaves[:split]) + root(leaves[split:]))


store, run = pathlib.Path(sys.argv[1]), json.loads(pathlib.Path(sys.argv[2]).read_bytes())
leaves, items = [], 0
for chunk in run["chunks"]:
    stored = (store / chunk["key"]).read_bytes()
    if sha256(stored).hex() != chunk["sha256"]:
        sys.exit(f"{chunk['key']} is not the chunk that was signed")
    lines = gzip.decompress(stored).split(b"\n")[:-1]
    leaves += [sha256(b"\x00" + line) for line in lines]
    items += sum(len(json.loads(line)["items"]) for line in lines)
if root(leaves).hex() != run["merkle_root"] or items != run["items"]:
    sys.exit("the lines are not those that were signed")
print(f"run {run['run_id']}: {len(leaves)} lines, {items} items, all as signed")
