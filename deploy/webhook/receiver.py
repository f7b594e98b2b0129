"""Receives Veriff's webhooks and puts the sessions that they name into the queue: an AWS Lambda behind a function URL or
an HTTP API, Python 3.11, no packages but boto3, which the runtime has.

POST /{integration}. Refuses what Veriff did not sign, and passes on no more than the id, the integration and the time of
the decision: the queue never holds a person's data. A forged `decided_at` would be a forged retention, which is why a
webhook must not reach the queue unchecked.

Environment: QUEUE_URL; SECRET_ID of a secret in AWS Secrets Manager, a JSON object of lists of shared secrets:
{"eu": ["new", "old"], "us": ["only"]}. Two at once let a secret be rotated without losing a webhook.
"""

import base64
import functools
import hashlib
import hmac
import json
import os
import re
import time

ID = re.compile(r"[A-Za-z0-9_-]{1,128}")
# How long a revoked secret may still be accepted.
SECRETS_LIVE_SECONDS = 300


def handler(event, _context):
    """Answers 200 only when the session is in the queue: anything else makes Veriff send it again."""
    integration = event.get("rawPath", "").strip("/")
    body = event.get("body") or ""
    body = base64.b64decode(body) if event.get("isBase64Encoded") else body.encode()
    headers = {name.lower(): value for name, value in event.get("headers", {}).items()}
    signature = headers.get("vrf-hmac-signature") or headers.get("x-hmac-signature") or ""

    secrets = load_secrets(int(time.time() / SECRETS_LIVE_SECONDS)).get(integration, [])
    if not any(is_signed(body, signature, secret) for secret in secrets):
        return {"statusCode": 401}
    try:
        record = record_of(json.loads(body), integration)
    except (ValueError, AttributeError, TypeError):
        record = None
    if record is None:
        # Signed, and of no session: asking for it again would not help.
        print(json.dumps({"message": "a webhook without a session", "integration": integration}))
        return {"statusCode": 200}
    client("sqs").send_message(QueueUrl=os.environ["QUEUE_URL"], MessageBody=json.dumps(record))
    return {"statusCode": 200}


def is_signed(body, signature, secret):
    expected = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return hmac.compare_digest(expected.encode(), signature.strip().lower().encode())


def record_of(body, integration):
    """The session record of a decision, a full-auto or an event webhook; None of anything else."""
    verification = body.get("verification") or {}
    session_id = verification.get("id") or body.get("sessionId") or body.get("id")
    if not isinstance(session_id, str) or not ID.fullmatch(session_id):
        return None
    record = {"session_id": session_id, "integration": integration}
    if verification.get("decisionTime"):
        record["decided_at"] = verification["decisionTime"]
    return record


@functools.lru_cache(maxsize=1)
def load_secrets(_interval):
    answer = client("secretsmanager").get_secret_value(SecretId=os.environ["SECRET_ID"])
    return json.loads(answer["SecretString"])


@functools.cache
def client(service):
    import boto3

    return boto3.client(service)
