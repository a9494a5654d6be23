"""A grid of Flower in this process: the same apps and messages, and no network.

Flower's own simulation does this for thousands of nodes and needs Ray. Needs the extra ``flower``.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any
from uuid import uuid4

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity


class LocalGrid(Grid):
    """A grid whose nodes are apps in this process: what `federate` needs, without a network.

    Parameters
    ----------
    apps : mapping of int to ClientApp
        The app of each client, by the client's id.
    node_config : callable, optional
        Returns what a client's owner has set: ``node_config(client)``, by default ``{"client": client}``.
    """

    def __init__(
        self,
        apps: Mapping[int, ClientApp],
        node_config: Callable[[int], dict[str, Any]] = lambda client: {"client": client},
    ) -> None:
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
        self._apps = {client + 1000: app for client, app in apps.items()}  # Flower numbers nodes anew
        self._contexts = {
            client + 1000: Context(1, client + 1000, node_config(client), RecordDict(), {}) for client in apps
        }
        self._replies: dict[str, Message] = {}

    def get_nodes(self) -> Iterable[NodeInfo]:
        """Return who is there, by the names they were registered under."""
        return [NodeInfo(node_id=node, name=str(node - 1000)) for node in self._apps]

    def get_node_ids(self) -> Iterable[int]:
        """Return the nodes' numbers."""
        return list(self._apps)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Have the apps answer; an app's exception is answered with an error, as Flower does."""
        pushed = []
        for message in messages:
            message.metadata.__dict__["_message_id"] = str(uuid4())
            node = message.metadata.dst_node_id
            try:
                reply = self._apps[node](message, self._contexts[node])
            except Exception as error:
                reply = Message(Error(2, f"{type(error).__name__}: {error}"), reply_to=message)
            self._replies[message.metadata.message_id] = reply
            pushed.append(message.metadata.message_id)
        return pushed

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the answers to these messages."""
        return [self._replies.pop(id) for id in message_ids if id in self._replies]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Return the answers."""
        return self.pull_messages(self.push_messages(messages))

    def create_message(self, *args: Any, **kwargs: Any) -> Message:
        """Return a message: Flower itself now advises to call `Message`."""
        return Message(*args, **kwargs)

    def set_run(self, run: Run) -> None:
        """Do nothing: there is one run."""

    @property
    def run(self) -> Run:
        """The only run."""
        return Run.create_empty(1)
