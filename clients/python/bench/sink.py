"""An ingest that accepts everything, in a process of its own. It prints its address.

	sink.py [SECONDS]

SECONDS is how long each answer takes.
"""

import http.server
import json
import sys
import time

DELAY = float(sys.argv[1]) if len(sys.argv) > 1 else 0.0


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        time.sleep(DELAY)
        body = json.dumps({"accepted": 0}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
server.serve_forever()
