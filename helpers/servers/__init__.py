"""A framework's server: its command and flags (`engines`), started and ended (`serving`), what it says of itself (`metrics`)."""
