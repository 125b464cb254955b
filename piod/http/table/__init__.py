"""Everything that the unit answers: the route table, one module for each kind of thing.

:mod:`piod.front` puts the lists together; of two routes that match, the first wins.
"""
