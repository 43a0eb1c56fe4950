"""The ClientApp: Flower's door to `client.round.dispatch`."""

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from client.round.dispatch import answer

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """One round at this site."""
    return Message(answer(message.content, context.node_config, context.state), reply_to=message)
