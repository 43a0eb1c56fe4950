"""The peers of our segmentation, by the word that chooses them."""

from typing import Final

from simulation.peers.monai_unet import MonaiUNet
from simulation.peers.peer import Peer
from simulation.peers.transunet import TransUNet

UNET = MonaiUNet()  # the one that stands in every report of a run that segments

PEERS: Final[dict[str, Peer]] = {
    "unet": UNET,
    "transunet": TransUNet(),
}
