"""The ledger: the state of every job in Redis, so that no image is lost or answered twice."""

from digitq.protocol.ledger.ledger import Ledger

__all__ = ["Ledger"]
