"""Long measurements that write records on this machine; `nox -s record` and `nox -s peers` run them."""
