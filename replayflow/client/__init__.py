"""Asking a hub for work: the client, the handles of instances, and what they show."""

from replayflow.client.arguments import instance_id_for
from replayflow.client.bulk import BulkOutcome
from replayflow.client.client import Client
from replayflow.client.doctor import Examination, Finding, Patience
from replayflow.client.finding import Wanted
from replayflow.client.forking import ForkCheck
from replayflow.client.handle import Instance
from replayflow.client.tree import InstanceTree, Lineage
from replayflow.client.views import InstancePage, InstanceState, LargeValue
from replayflow.client.waits import Wait
from replayflow.core.waits import WaitKind
from replayflow.store.base import Lost

__all__ = [
    "BulkOutcome",
    "Client",
    "Examination",
    "Finding",
    "ForkCheck",
    "Instance",
    "InstancePage",
    "InstanceState",
    "InstanceTree",
    "LargeValue",
    "Lineage",
    "Lost",
    "Patience",
    "Wait",
    "WaitKind",
    "Wanted",
    "instance_id_for",
]
