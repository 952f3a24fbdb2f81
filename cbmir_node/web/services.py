"""What the HTTP port needs of the node."""

from __future__ import annotations

from dataclasses import dataclass

from cbmir_node.answers.similar import SimilaritySearcher
from cbmir_node.config import Settings
from cbmir_node.imaging.decoder_pool import DecoderPool
from cbmir_node.intake import Intake
from cbmir_node.presentation.examples import TemporaryExamples
from cbmir_node.presentation.explanations import Explanations
from cbmir_node.presentation.network import ActiveNetwork
from cbmir_node.presentation.pictures import Pictures
from cbmir_node.stores import Stores
from cbmir_node.web.node_health import NodeHealth


@dataclass(frozen=True)
class WebServices:
    """The parts of a running node that requests are answered with.

    Attributes
    ----------
    settings : Settings
    stores : Stores
        Archive, catalogue and models.
    intake : Intake
        The way in for what is to be stored.
    search : SimilaritySearcher
    decoders : DecoderPool
        Decompress and render.
    pictures : Pictures
        Thumbnails, renderings and values of stored images.
    examples : TemporaryExamples
        Files that were dropped in and are not stored.
    network : ActiveNetwork
        The model that answers queries, loaded in this process.
    explanations : Explanations
        What it takes an image for, and where it looks.
    health : NodeHealth
        What the node tells of itself.
    """

    settings: Settings
    stores: Stores
    intake: Intake
    search: SimilaritySearcher
    decoders: DecoderPool
    pictures: Pictures
    examples: TemporaryExamples
    network: ActiveNetwork
    explanations: Explanations
    health: NodeHealth
