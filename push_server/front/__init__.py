"""The HTTP front: waitress, and the way a connection leaves it and comes back.

waitress accepts, parses, and runs the WSGI application. One that is to hold a connection open calls
``environ["push_server.hijack"](take)``; when its request is done, waitress's own I/O thread lets go
of the socket and passes it to `take`, together with the way back for the next request. No thread
and no waitress object is held meanwhile.

`requests`: what one request is, and how it is refused. `channel`: one connection, until it is
taken. `dispatch`: which thread serves a request. `listeners`: the listening sockets, and the I/O
thread.

Everything is attached by class attributes and `super()`; no method of waitress is copied. What
waitress 3.0.2 leaves open is closed here (`Channel.overdue`) and in `heads`.

Threads: methods say which thread runs them, or "where it is served", which `dispatch` decides.
The only importers of waitress.
"""
