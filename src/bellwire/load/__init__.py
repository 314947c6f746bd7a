"""The load generator: many clients in one process that is quicker than the servers it measures.

It is used by ``bellwire bench`` and by the measurements in ``bench/``, as a process of its own: ``python -m
bellwire.load``. It shares no code with the server, so that a mistake of one is found by the other. It needs epoll, and
so Linux.

::

    clients/     what clients of each kind say and understand
    wire         as much of WebSocket as they need
    swarm        many of them in one epoll
    fanout       one publishes, everyone receives
    rooms        the same in many rooms of a few members
    roundtrips   everyone asks, and waits for the reply
    connecting   everyone comes at once
    idle         nobody does anything
    result       what a measurement found
    processes    servers and generators as processes, each on its core
    machine      on what it was measured
    program      what the server under test does, on Bellwire
"""
