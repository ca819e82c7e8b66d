"""The recognisers that come with mindscore, by name, in the order in which they are asked."""

from mindscore.recognisers.deepagents import Deepagents
from mindscore.recognisers.hermes import Hermes
from mindscore.recognisers.letta import Letta
from mindscore.recognisers.literal import Literal

RECOGNISERS = {
    "hermes": Hermes(),
    "deepagents": Deepagents(),
    "letta": Letta(),
    "literal": Literal(),
}
