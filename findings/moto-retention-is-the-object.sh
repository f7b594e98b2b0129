#!/usr/bin/env bash
# moto 5.2.1, the S3 server: GetObjectRetention answers with the object.
#
# Expected: the lock of the object, as an XML document. Seen: 200 with the bytes of the object itself, so that a client
# which parses leniently sees no lock where there is one. A test of object locks on moto proves nothing; ours use another
# server for S3.
set -euo pipefail
folder=$(mktemp -d)
server=
end() {
    if [[ -n $server ]]; then kill "$server" && wait "$server" || true; fi 2> "$folder/ended"
    rm -rf "$folder"
}
trap end EXIT

python3 -m venv "$folder/python"
"$folder/python/bin/pip" install --quiet --disable-pip-version-check 'moto[server,s3]==5.2.1' 'boto3==1.44.5'
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
"$folder/python/bin/moto_server" -H 127.0.0.1 -p "$port" > "$folder/log" 2>&1 &
server=$!

"$folder/python/bin/python" - "$port" << 'PYTHON'
import datetime, importlib.metadata, sys, time, urllib.request
import boto3
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

print("moto", importlib.metadata.version("moto"))
address = f"http://127.0.0.1:{sys.argv[1]}"
for _ in range(600):
    try:
        urllib.request.urlopen(f"{address}/moto-api/data.json").read()
        break
    except OSError:
        time.sleep(0.1)
s3 = boto3.client("s3", endpoint_url=address, region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b")
s3.create_bucket(Bucket="locked", ObjectLockEnabledForBucket=True)
until = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=1)
body = b"what the object holds"
s3.put_object(Bucket="locked", Key="k", Body=body, ObjectLockMode="COMPLIANCE", ObjectLockRetainUntilDate=until)
head = s3.head_object(Bucket="locked", Key="k")
print("HeadObject:", head.get("ObjectLockMode"), head.get("ObjectLockRetainUntilDate"))

request = AWSRequest("GET", f"{address}/locked/k?retention")
SigV4Auth(Credentials("a", "b"), "s3", "us-east-1").add_auth(request)
with urllib.request.urlopen(urllib.request.Request(request.url, headers=dict(request.headers))) as answer:
    status, answered = answer.status, answer.read()
print("GetObjectRetention:", status, answered)
sys.exit(0 if status == 200 and answered == body else 1)
PYTHON
