#!/usr/bin/env python3
"""Checks the run records of an archive with the public key and Python's standard library, and nothing else.

    verify_run.py STORE PUBLIC_KEY [HEAD ...]     all of runs/ and archive.json in a copy of the store; heads noted earlier
    verify_run.py --proof PROOF PUBLIC_KEY        one proof, as `veriff-archive prove` makes it

Prints what is wrong, one line each, and exits 1; or exits 0.
"""
import base64, gzip, hashlib, json, pathlib, re, sys

# --- Ed25519 (RFC 8032, section 5.1.7) ------------------------------------------------------------------------------

P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P


def add(a, b):
    e, f = (a[1] - a[0]) * (b[1] - b[0]) % P, (a[1] + a[0]) * (b[1] + b[0]) % P
    g, h = 2 * a[3] * b[3] * D % P, 2 * a[2] * b[2] % P
    e, f, g, h = f - e, h - g, h + g, f + e
    return e * f % P, g * h % P, f * g % P, e * h % P


def multiply(number, point):
    result = (0, 1, 1, 0)
    while number:
        if number & 1:
            result = add(result, point)
        number, point = number >> 1, add(point, point)
    return result


def point_of(data):
    y, sign = int.from_bytes(data, "little") & (1 << 255) - 1, data[31] >> 7
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if x * x % P != square:
        x = x * pow(2, (P - 1) // 4, P) % P
    if y >= P or x * x % P != square or (x == 0 and sign):
        raise ValueError("no point of the curve")
    x = P - x if x & 1 != sign else x
    return x, y, 1, x * y % P


BASE = point_of((4 * pow(5, -1, P) % P).to_bytes(32, "little"))


def is_signed(message, signature, public):
    if len(signature) != 64 or (s := int.from_bytes(signature[32:], "little")) >= ORDER:
        return False
    challenge = int.from_bytes(hashlib.sha512(signature[:32] + public + message).digest(), "little") % ORDER
    left, right = multiply(s, BASE), add(point_of(signature[:32]), multiply(challenge, point_of(public)))
    return (left[0] * right[2] - right[0] * left[2]) % P == 0 == (left[1] * right[2] - right[1] * left[2]) % P


# --- Merkle trees (RFC 6962, section 2.1) ---------------------------------------------------------------------------


def sha256(data):
    return hashlib.sha256(data).digest()


def digest(data):
    return sha256(data).hex()


def node(left, right):
    return sha256(b"\x01" + left + right)


def root(leaves):
    if len(leaves) < 2:
        return leaves[0] if leaves else sha256(b"")
    split = 1 << (len(leaves) - 1).bit_length() - 1
    return node(root(leaves[:split]), root(leaves[split:]))


def root_from(leaf, index, size, path):
    if size < 2:
        return leaf if (index, size, path) == (0, 1, []) else None
    split, rest, sibling = 1 << (size - 1).bit_length() - 1, path[:-1], bytes.fromhex(path[-1]) if path else b""
    inner = root_from(leaf, index, split, rest) if index < split else root_from(leaf, index - split, size - split, rest)
    return inner and (node(inner, sibling) if index < split else node(sibling, inner))


# --- What the archive holds -----------------------------------------------------------------------------------------


class Wrong(Exception):
    """Something is not as it must be."""


def must(is_so, what):
    if not is_so:
        raise Wrong(what)


def canonical(value):  # RFC 8785, as far as configurations need it
    if isinstance(value, dict):
        fields = sorted(value.items(), key=lambda field: field[0].encode("utf-16-be"))
        return "{" + ",".join(f"{canonical(name)}:{canonical(field)}" for name, field in fields) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(canonical, value)) + "]"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e21:
        value = int(value)
    return json.dumps(value, ensure_ascii=False)


def public_key(pem):
    der = base64.b64decode("".join(line for line in pem.split("\n") if not line.startswith("-----")))
    must(len(der) == 44 and der[:12].hex() == "302a300506032b6570032100", "the public key is no Ed25519 key in PEM")
    return der


def check_signature(document, text, der):
    try:
        signature = base64.b64decode(text, validate=True)
        must(base64.b64encode(signature) == text and is_signed(document, signature, der[12:]), "")
    except (ValueError, Wrong):
        raise Wrong("the signature is not this key's over these bytes") from None


def run_folder(run):
    return f"runs/{run['started_at'][:10].replace('-', '/')}/{run['run_id']}/"


def check_record(document, signature, key, der):
    """A run record: signed by the key it names, under its own key, with the configuration it names."""
    check_signature(document, signature, der)
    run = json.loads(document)
    must(run["schema"] == "veriff-archive/run/v1", "no run record")
    must(run["key_id"] == digest(der), "signed by another key than it names")
    must(run_folder(run) + "run.json" == key, "the record of another run")
    must(digest(canonical(run["config"]).encode()) == run["config_sha256"], "another configuration than was signed")
    return run


def check_chunks(run, read):
    leaves, items = [], 0
    for number, chunk in enumerate(run["chunks"], 1):
        must(chunk["key"] == f"{run_folder(run)}sessions-{number:06}.ndjson.gz", "a chunk of another run")
        stored = read(chunk["key"])
        must(digest(stored) == chunk["sha256"], f"{chunk['key']} is not the chunk that was signed")
        lines = gzip.decompress(stored).split(b"\n")[:-1]
        found = sum(len(json.loads(line)["items"]) for line in lines)
        must((len(lines), found) == (chunk["sessions"], chunk["items"]), f"{chunk['key']} has other lines")
        leaves, items = leaves + [sha256(b"\x00" + line) for line in lines], items + found
    must(items == run["items"] and root(leaves).hex() == run["merkle_root"], "another Merkle root than was signed")


def check_entry(document, signature, key, der):
    """An entry of a chain: signed, and under its own key."""
    check_signature(document, signature, der)
    entry = json.loads(document)
    must(entry["schema"] == "veriff-archive/chain/v1", "no entry of a chain")
    must(f"runs/chain/{entry['group']}/{entry['number']:08}.json" == key, "another entry")
    return entry


def check_store(store, der, heads=()):
    """Everything under runs/, and archive.json. Returns what is wrong."""
    store, problems, seen = pathlib.Path(store), [], set()
    keys = {path.relative_to(store).as_posix() for path in (store / "runs").rglob("*") if path.is_file()}
    left, heads = set(keys), set(heads)

    def read(key):
        must((store / key).is_file(), f"{key} is missing")
        left.discard(key)
        return (store / key).read_bytes()

    def signature_of(key):
        stored = read(key + ".sig")
        must(stored.endswith(b"\n"), f"{key}.sig is no signature")
        return stored[:-1]

    def check(key, previous):
        document = read(key)
        heads.discard(digest(document))
        entry = check_entry(document, signature_of(key), key, der)
        must(entry["archive_id"] == archive["archive_id"], "the entry of another archive")
        must(entry["previous_sha256"] == previous, "it does not follow the entry before")
        must(entry["run_key"] not in seen, "its run was entered already")
        seen.add(entry["run_key"])
        record = read(entry["run_key"])
        must(digest(record) == entry["run_sha256"], f"{entry['run_key']} is not the record that was entered")
        run = check_record(record, signature_of(entry["run_key"]), entry["run_key"], der)
        must((run["run_id"], run["group"]) == (entry["run_id"], entry["group"]), "the record of another run or group")
        must(run["archive_id"] == archive["archive_id"], "the record of another archive")
        must(run["archive_sha256"] == digest(archive_json), "another archive.json than was signed")
        check_chunks(run, read)

    try:
        archive_json = read("archive.json")
        archive = json.loads(archive_json)
        must(archive["schema"] == "veriff-archive/archive/v1", "archive.json is something else")
    except Exception as error:
        return [f"archive.json: {error}"]
    groups = sorted({key.split("/")[2] for key in keys if re.fullmatch(r"runs/chain/[^/]+/[0-9]{8,}\.json", key)})
    if not groups:
        problems.append("no chain: nothing is signed")
    for group in groups:
        number, previous = 1, None
        while (key := f"runs/chain/{group}/{number:08}.json") in keys:
            try:
                check(key, previous)
            except Exception as error:
                problems.append(f"{key}: {error}")
            number, previous = number + 1, digest((store / key).read_bytes())
    problems += [f"{key}: no chain leads to it (a run that is not closed has chunks only)" for key in sorted(left)]
    return problems + [f"head {head}: no entry has this digest" for head in sorted(heads)]


def check_proof(text, der):
    """One proof. Returns what is wrong; what the proof says of itself counts for nothing."""
    try:
        proof = json.loads(text)
        must(proof["schema"] == "veriff-archive/prove/v1", "no proof")
        record = proof["run"].encode()
        run = check_record(record, proof["run_signature"].encode(), proof["run_key"], der)
        line = json.loads(proof["line"])
        leaf = sha256(b"\x00" + proof["line"].encode())
        size = sum(chunk["sessions"] for chunk in run["chunks"])
        found = root_from(leaf, proof["leaf_index"], size, proof["path"])
        must(found and found.hex() == run["merkle_root"], "the path does not lead to the signed root")
        said = (proof["archive_id"], proof["run_id"], proof["session_id"], proof["key_id"])
        must(said == (run["archive_id"], run["run_id"], line["session_id"], run["key_id"]), "the proof of something else")
        must((proof["tree_size"], proof["merkle_root"]) == (size, run["merkle_root"]), "the proof of something else")
        items = [item["media_id"] for item in line["items"]]
        must(proof["media_id"] is None or proof["media_id"] in items, "the line does not name the item")
        chain = proof["chain"]
        if chain and chain["signature"]:  # An entry that nobody signed adds nothing.
            entry = check_entry(chain["entry"].encode(), chain["signature"].encode(), chain["key"], der)
            must(entry["archive_id"] == run["archive_id"], "the entry of another archive")
            must((entry["run_sha256"], entry["run_key"]) == (digest(record), proof["run_key"]), "the entry of another run")
    except Exception as error:
        return [f"{type(error).__name__}: {error}"]
    return []


def main(words):
    if len(words) < 2 or (words[0] == "--proof" and len(words) != 3):
        sys.exit(__doc__)
    if words[0] == "--proof":
        problems = check_proof(pathlib.Path(words[1]).read_bytes(), public_key(pathlib.Path(words[2]).read_text()))
    else:
        problems = check_store(words[0], public_key(pathlib.Path(words[1]).read_text()), words[2:])
    print("\n".join(problems) or "all as signed")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main(sys.argv[1:])
