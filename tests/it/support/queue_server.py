"""An SQS server for the tests: moto, on a free port of this machine, with one lock around its queues.

Usage: queue_server.py PORT_FILE

moto answers each request on a thread of its own, and these change the same lists without a lock: two deletes at once
bring a message back, two receives hand it out twice. Tests of what workers do to a queue need one that holds.

Beyond SQS it answers GET /let-time-pass/NAME: every hidden message of that queue is visible, as if its time were over.
"""

import functools
import logging
import os
import sys
import threading

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from moto.sqs import models
from werkzeug.serving import make_server

LOCK = threading.RLock()


def locked(method):
    @functools.wraps(method)
    def hold(*args, **kwargs):
        with LOCK:
            return method(*args, **kwargs)

    return hold


def let_time_pass(name):
    for regions in models.sqs_backends.values():
        for region in regions.values():
            if name in region.queues:
                with LOCK:
                    for message in region.queues[name]._messages:
                        message.visible_at = 0


def with_passing_time(app):
    def answer(environ, start_response):
        _, _, name = environ["PATH_INFO"].partition("/let-time-pass/")
        if not name:
            return app(environ, start_response)
        let_time_pass(name)
        start_response("200 OK", [("Content-Length", "0")])
        return []

    return answer


def main():
    backend = models.SQSBackend
    for name in ("send_message", "send_message_batch", "receive_message", "delete_message", "delete_message_batch"):
        setattr(backend, name, locked(getattr(backend, name)))
    for name in ("change_message_visibility", "change_message_visibility_batch", "get_queue_attributes"):
        setattr(backend, name, locked(getattr(backend, name)))

    make_queue = models.Queue.__init__

    @functools.wraps(make_queue)
    def make_queue_with_the_lock(queue, *args, **kwargs):
        make_queue(queue, *args, **kwargs)
        # A long poll waits on this, and lets the lock go meanwhile.
        queue._messages_lock = threading.Condition(LOCK)

    models.Queue.__init__ = make_queue_with_the_lock

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    app = with_passing_time(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, app, threaded=True)
    draft = sys.argv[1] + ".draft"
    with open(draft, "w") as file:
        file.write(str(server.port))
    os.rename(draft, sys.argv[1])
    server.serve_forever()


main()
