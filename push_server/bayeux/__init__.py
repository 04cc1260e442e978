"""Bayeux 1.0, for clients that exist already: CometD, Faye, aiocometd.

A Bayeux client is a subscriber like any other; what is different is its connection. It is a
`Mailbox`, which outlives requests: publications wait in it until a request fetches them, or leave
at once where the client has a WebSocket or an EventSource open.

`names` maps channels, `elements` is the transport, `mailbox` the connection. What a client may ask
for is answered by `push_server.doors.bayeux`.
"""
