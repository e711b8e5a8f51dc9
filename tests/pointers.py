"""JSON pointers (RFC 6901), by which a page says where in a record a figure stands."""


def at(value, pointer: str):
    """What ``pointer`` leads to in ``value``."""
    for key in pointer.split("/")[1:]:
        key = key.replace("~1", "/").replace("~0", "~")
        value = value[int(key)] if isinstance(value, list) else value[key]
    return value
