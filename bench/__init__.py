"""What Bellwire's speed is, side by side with its peers, in one run on this machine: ``make bench``.

::

    contestants  the servers that are measured
    brokers      what stands between nodes
    peers        what the peers need, from the npm registry and from Debian
    works        what is measured, of whom
    rounds       everything, again and again
    spread       medians and ratios
    report       the table
    tables       the tables of the documentation
    plot         the picture
    floor        what nothing can be faster than
    memory       things that are no connections
    growth       how cost grows, with everything of which there can be more
    costs        what the server itself does
    sockets      connections
    beats        nodes beside each other
    bus          nodes with a broker between them
    carriers     clients without sockets
    curve        a cost by a number, and how it may grow
    lines        their picture
    model        what a cluster would need
    storm        what waits in queues
    soak         half of the most that a server can do, for half an hour
    paced        its load
    verdict      whether something stayed as it was
    amounts      numbers of the command lines
"""

from pathlib import Path

ROOT = Path(__file__).parents[1]
"""The repository."""
