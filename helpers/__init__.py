"""The collection's package: rooms, each with a charter in its ``__init__``, on a small common ground.

A room imports from the ground, from itself and from rooms before it: bench, weights, servers, lessons, studies, gpu, collection.
"""
