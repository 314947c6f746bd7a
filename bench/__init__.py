"""What Bellwire's speed is, side by side with its peers, in one run on this machine: ``make bench``.

::

    contestants  the servers that are measured
    brokers      what stands between nodes
    peers        what the peers need, from the npm registry and from Debian
    works        what is measured, of whom
    rounds       everything, again and again
    spread       medians and ratios
    report       the table
    plot         the picture
    memory       things that are no connections
    soak         half of the most that a server can do, for half an hour
    paced        its load
    verdict      whether something stayed as it was
"""
