"""What the sidecar is measured against: the least that its framework can do, and the same work the way
people do it today. Each is a process of its own; those that count do so in a Valkey that stands beside,
configured as the sidecar's own.
"""
