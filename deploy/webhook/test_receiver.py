"""What reaches the queue and what does not: python -m unittest discover deploy/webhook"""

import base64
import hashlib
import hmac
import json
import os
import unittest
from unittest import mock

import receiver

DECISION = {
    "status": "success",
    "verification": {
        "id": "aea9ba6d-1b47-47fc-a4fc-f72b6d3584a7",
        "decisionTime": "2026-11-20T10:11:12.345Z",
        "person": {"firstName": "Made-Up"},
    },
}


class Receiver(unittest.TestCase):
    def setUp(self):
        os.environ.update(QUEUE_URL="https://sqs.example.com/1/queue", SECRET_ID="receiver")
        self.queue, manager = mock.Mock(), mock.Mock()
        manager.get_secret_value.return_value = {"SecretString": json.dumps({"eu": ["new", "old"]})}
        receiver.load_secrets.cache_clear()
        clients = {"sqs": self.queue, "secretsmanager": manager}
        patch = mock.patch.object(receiver, "client", clients.__getitem__)
        patch.start()
        self.addCleanup(patch.stop)

    def post(self, body, secret="new", path="/eu", header="X-HMAC-SIGNATURE", encode=False):
        text = json.dumps(body) if not isinstance(body, str) else body
        signature = hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest()
        event = {"rawPath": path, "headers": {header: signature}, "body": text}
        if encode:
            event.update(body=base64.b64encode(text.encode()).decode(), isBase64Encoded=True)
        return receiver.handler(event, None)["statusCode"]

    def sent(self):
        return [json.loads(call.kwargs["MessageBody"]) for call in self.queue.send_message.call_args_list]

    def test_a_decision_becomes_a_record_without_a_person(self):
        self.assertEqual(self.post(DECISION), 200)
        expected = {
            "session_id": "aea9ba6d-1b47-47fc-a4fc-f72b6d3584a7",
            "integration": "eu",
            "decided_at": "2026-11-20T10:11:12.345Z",
        }
        self.assertEqual(self.sent(), [expected])

    def test_events_and_full_auto_are_understood_also_encoded_and_under_the_other_header(self):
        self.assertEqual(self.post({"id": "one", "action": "submitted"}, header="vrf-hmac-signature"), 200)
        self.assertEqual(self.post({"sessionId": "two", "attemptId": "x"}, encode=True), 200)
        self.assertEqual([record["session_id"] for record in self.sent()], ["one", "two"])

    def test_the_old_secret_is_taken_while_it_is_rotated(self):
        self.assertEqual(self.post(DECISION, secret="old"), 200)

    def test_what_is_not_signed_for_this_integration_is_refused(self):
        self.assertEqual(self.post(DECISION, secret="other"), 401)
        self.assertEqual(self.post(DECISION, path="/us"), 401)
        self.assertEqual(self.post(DECISION, header="x-other"), 401)
        self.assertEqual(self.sent(), [])

    def test_what_names_no_session_is_taken_and_dropped(self):
        for body in ({"status": "success"}, {"id": "../x"}, {"id": 7}, [], "no json"):
            self.assertEqual(self.post(body), 200)
        self.assertEqual(self.sent(), [])

    def test_a_queue_that_refuses_makes_veriff_send_again(self):
        self.queue.send_message.side_effect = RuntimeError("throttled")
        with self.assertRaises(RuntimeError):
            self.post(DECISION)


if __name__ == "__main__":
    unittest.main()
