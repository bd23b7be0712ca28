"""Asking a hub for work: the client, the handles of instances, and what they show."""

from replayflow.client.arguments import instance_id_for
from replayflow.client.client import Client
from replayflow.client.forking import ForkCheck
from replayflow.client.handle import Instance
from replayflow.client.views import InstancePage, InstanceState

__all__ = ["Client", "ForkCheck", "Instance", "InstancePage", "InstanceState", "instance_id_for"]
