"""Asking a hub for work: the client, the handles of instances, and what they show."""

from replayflow.client.arguments import instance_id_for
from replayflow.client.bulk import BulkOutcome
from replayflow.client.client import Client
from replayflow.client.finding import Wanted
from replayflow.client.handle import Instance
from replayflow.client.views import InstancePage, InstanceState

__all__ = ["BulkOutcome", "Client", "Instance", "InstancePage", "InstanceState", "Wanted", "instance_id_for"]
