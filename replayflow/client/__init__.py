"""Asking a hub for work: the client, the handles of instances, and what they show."""

from replayflow.client.arguments import instance_id_for
from replayflow.client.client import Client
from replayflow.client.handle import Instance
from replayflow.client.views import InstancePage, InstanceState, LargeValue

__all__ = ["Client", "Instance", "InstancePage", "InstanceState", "LargeValue", "instance_id_for"]
