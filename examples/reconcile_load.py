"""Makes a ledger of SQLite and an inventory report that agree, to measure `audit reconcile --inventory` with.

    python3 examples/reconcile_load.py PROGRAM FOLDER [KEYS]

FOLDER gets a configuration, the ledger and the report, KEYS keys long (five million unless told otherwise), in an order
that is not that of the keys. Then, in FOLDER, with the bucket's server at hand for archive.json:

    veriff-archive --config config.toml audit reconcile --inventory manifest.json
"""

import gzip
import hashlib
import json
import pathlib
import sqlite3
import subprocess
import sys
import time

program, folder, keys = sys.argv[1], pathlib.Path(sys.argv[2]), int((sys.argv[3:] or ["5000000"])[0])
MEDIA = 3
sessions = keys // (1 + 2 * MEDIA)
folder.mkdir(parents=True, exist_ok=True)
(folder / "config.toml").write_text(
    f'[store]\nurl = "file://{folder}/store"\n[ledger]\nurl = "sqlite://{folder}/ledger.db"\n'
)
archive = folder / "store" / "archive.json"
archive.parent.mkdir(exist_ok=True)
archive.write_text(
    json.dumps(
        {
            "schema": "veriff-archive/archive/v1",
            "archive_id": "11111111-2222-4333-8444-555555555555",
            "created_at": "2026-01-01T00:00:00.000Z",
            "version": "0.1.0",
        }
    )
)
subprocess.run([program, "--config", folder / "config.toml", "ledger", "migrate"], check=True, stdout=sys.stderr)


def uuid(*parts):
    digest = hashlib.md5("/".join(map(str, parts)).encode(), usedforsecurity=False).hexdigest()
    return f"{digest[:8]}-{digest[8:12]}-4{digest[13:16]}-8{digest[17:20]}-{digest[20:]}"


begun = time.time()
ledger = sqlite3.connect(folder / "ledger.db")
ledger.executescript("PRAGMA synchronous = OFF; PRAGMA cache_size = -200000;")
rows, media, digest = [], [], bytes(32)
ids = sorted(uuid("session", number) for number in range(sessions))


def flush():
    ledger.executemany(
        "INSERT INTO sessions VALUES (?, NULL, NULL, NULL, NULL, 'default', 'archived', NULL, NULL, 0, 0, ?, NULL, 1, ?, 1, 1,"
        f" {MEDIA}, {MEDIA * 1000}, 1, 'run', 0, 0, NULL, NULL)",
        rows,
    )
    ledger.executemany("INSERT INTO media VALUES (?, ?, ?, 'image', ?, NULL, 1000, ?)", media)
    rows.clear()
    media.clear()


def line(key, size):
    return f'"","{key}","","true","false","{size}","2026-11-01T00:00:00.000Z"\n'


files = [gzip.open(folder / f"part-{number}.csv.gz", "wt", compresslevel=1) for number in range(8)]
files[0].write(line("archive.json", 100))
for number, session in enumerate(ids):
    # Files that are each in order and together are not, as a report may be.
    out = files[number * 7 % 8]
    manifest = f"sessions/{session}/manifest/0001.json"
    rows.append((session, manifest, digest))
    attempt = uuid("attempt", session)
    for item in sorted(uuid("media", session, item) for item in range(MEDIA)):
        key = f"sessions/{session}/{attempt}/{item}.jpg"
        media.append((session, item, attempt, key, digest))
        out.write(line(key, 1000))
        out.write(line(f"{key}.meta.json", 900))
    out.write(line(manifest, 3000))
    if len(rows) == 20_000:
        flush()
flush()
ledger.execute("INSERT INTO archive VALUES (1, '11111111-2222-4333-8444-555555555555')")
ledger.commit()
ledger.close()
for file in files:
    file.close()
(folder / "manifest.json").write_text(
    json.dumps(
        {
            "sourceBucket": "",
            "destinationBucket": "arn:aws:s3:::",
            "fileFormat": "CSV",
            "fileSchema": "Bucket, Key, VersionId, IsLatest, IsDeleteMarker, Size, LastModifiedDate",
            "files": [{"key": f"part-{number}.csv.gz"} for number in range(8)],
        }
    )
)
print(f"{sessions} sessions, {1 + sessions * (1 + 2 * MEDIA)} keys, {time.time() - begun:.0f} s", file=sys.stderr)
